"""The single seam where precision enters a model.

Families ask for `linear(in, out, role, recipe)` and never learn what the numbers are kept in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.precision import Recipe, Role


class Linear(nn.Module):
    """y = x W^T (+ b), with W of shape [out, in] in the dtype that the recipe gives its role.

    Where the recipe keeps weights in fewer bits, `quaver.quant` puts a layer of its own in place of
    this one once it is loaded: same methods, same inputs and outputs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dtype: torch.dtype,
        bias: bool = False,
        role: Role = Role.BACKBONE,
    ) -> None:
        super().__init__()
        self.role = role
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype)) if bias else None

    @property
    def dtype(self) -> torch.dtype:
        """What inputs must be in, outside of autocast."""
        return self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in the dtype of x under autocast or of the weight."""
        return F.linear(x, self.weight, self.bias)

    def settle(self) -> None:
        """Lay the loaded weight out for where it lives.

        On a CPU, column-major: a product with one row then reads it at 13.6 GB/s where the usual
        order gives 9.9 (fp32; bf16: 14.5 and 10.1; an AMD EPYC with two cores).
        """
        if self.weight.device.type == "cpu" and self.weight.shape[0] >= self.weight.shape[1]:
            self.weight.data = self.weight.data.t().contiguous().t()

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs start..stop-1 only: the other rows of the weight are not read."""
        bias = None if self.bias is None else self.bias[start:stop]
        return F.linear(x, self.weight[start:stop], bias)


def linear(
    in_features: int, out_features: int, role: Role, recipe: Recipe, bias: bool = False
) -> Linear:
    """A linear layer in the precision of `role` under `recipe`; its weights are uninitialised."""
    return Linear(in_features, out_features, recipe.format(role).dtype, bias, role)


def embedding(count: int, width: int, recipe: Recipe) -> nn.Embedding:
    """A token table [count, width] in the precision of the embed role."""
    return nn.Embedding(count, width, dtype=recipe.format(Role.EMBED).dtype)
