"""The gated feed-forward block of Llama (SwiGLU; Shazeer, 2020)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from quaver.nn.linear import linear
from quaver.precision import Recipe, Role


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are one matrix, so x is read once."""

    def __init__(self, width: int, inner: int, role: Role, recipe: Recipe) -> None:
        super().__init__()
        self.gate_up = linear(width, 2 * inner, role, recipe)
        self.down = linear(inner, width, role, recipe)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
