"""The single seam where precision enters a model.

Families ask for `linear(in, out, role, recipe)` and never learn what the numbers are kept in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.precision import Recipe, Role


@contextmanager
def tf32_products() -> Iterator[None]:
    """Within, CUDA multiplies fp32 numbers as TF32.

    The setting is the process's, and other models share it, so it lasts for one product.
    """
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        yield
    finally:
        products.fp32_precision = before


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
        self.tf32 = False  # whether a GPU may multiply fp32 as TF32
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype)) if bias else None

    @property
    def dtype(self) -> torch.dtype:
        """What inputs must be in, outside of autocast."""
        return self.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in the dtype of x under autocast or of the weight."""
        return self._product(x, self.weight, self.bias)

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
        return self._product(x, self.weight[start:stop], bias)

    def drop_rows(self, count: int) -> None:
        """Forget the first `count` outputs."""
        self.weight = nn.Parameter(self.weight[count:].clone(), self.weight.requires_grad)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias[count:].clone(), self.bias.requires_grad)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.tf32:
            return F.linear(x, weight, bias)
        with tf32_products():
            return F.linear(x, weight, bias)


def linear(
    in_features: int, out_features: int, role: Role, recipe: Recipe, bias: bool = False
) -> Linear:
    """A linear layer in the precision of `role` under `recipe`; its weights are uninitialised."""
    return Linear(in_features, out_features, recipe.format(role).dtype, bias, role)


def embedding(count: int, width: int, recipe: Recipe) -> nn.Embedding:
    """A token table [count, width] in the precision of the embed role."""
    return nn.Embedding(count, width, dtype=recipe.format(Role.EMBED).dtype)
