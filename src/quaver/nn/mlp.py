"""The gated feed-forward block of Llama (SwiGLU; Shazeer, 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from quaver.nn.linear import linear
from quaver.nn.norm import RMSNorm
from quaver.precision import Recipe, Role


class GatedMLP(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x))); gate and up are one matrix: x is read once."""

    def __init__(self, width: int, inner: int, role: Role, recipe: Recipe) -> None:
        super().__init__()
        self.gate_up = linear(width, 2 * inner, role, recipe)
        self.down = linear(inner, width, role, recipe)

    def forward(self, x: Tensor, norm: RMSNorm) -> Tensor:
        return self.down(self.gate_up(x, norm=norm, gated=True), residual=x)
