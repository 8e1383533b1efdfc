"""The single seam where precision enters a model.

Families ask for `linear(in, out, role, recipe)` and never learn what the numbers are kept in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.nn.norm import RMSNorm
from quaver.nn.weight import Kept
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


class Product(nn.Module):
    """y = x W^T (+ b), whatever W is kept in, with what a Transformer puts around it."""

    out_features: int
    bias: nn.Parameter | None
    input_scale: Tensor | None  # [], where inputs are rounded by one that is known
    fused = False  # whether few rows take one kernel, all around the product included
    most_fused_rows = 64

    def forward(
        self,
        x: Tensor,
        *,
        norm: RMSNorm | None = None,
        gated: bool = False,
        residual: Tensor | None = None,
        only: tuple[int, int] | None = None,
    ) -> Tensor:
        """x [..., in] -> [..., out], in the dtype of x under autocast or of the weight.

        norm: of x, first. gated: silu of the first half of the outputs times the second,
        [..., out / 2]. residual: added last. only: from which output on, and up to which; the
        weight's other rows are not read.
        """
        if self.fused and x.numel() <= self.most_fused_rows * x.shape[-1]:
            return self._fused(x, norm, gated, residual, only)
        if self.fused:
            y = self._many(x, norm, *(only or (0, self.out_features)))
        else:
            x = x if norm is None else norm(x)
            y = self.whole(x) if only is None else self.rows(x, *only)
        if gated:
            y = self._gated(y)
        return y if residual is None else residual + y

    def fuse(self) -> None:
        """Let few rows take one kernel from now on, where there is one for this weight."""
        self.fused = self.has_kernel and self.bias is None

    @property
    @abstractmethod
    def has_kernel(self) -> bool:
        """Whether `kernels.skinny` multiplies by this weight, where it is."""

    def whole(self, x: Tensor) -> Tensor:
        """All outputs."""
        return self.rows(x, 0, self.out_features)

    @abstractmethod
    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs start..stop-1 only: the other rows of the weight are not read."""

    @abstractmethod
    def kept(self, start: int, stop: int) -> Kept:
        """Rows start..stop-1 of the weight as kernels read them."""

    def _many(self, x: Tensor, norm: RMSNorm | None, start: int, stop: int) -> Tensor:
        """Outputs start..stop-1 of more rows than one kernel takes, where there are kernels."""
        return self.rows(x if norm is None else _normed(x, norm), start, stop)

    def _gated(self, y: Tensor) -> Tensor:
        if self.fused:
            # only builds of torch for GPUs bring Triton
            from quaver.nn.kernels.gate import gate

            return gate(y)
        first, second = y.chunk(2, dim=-1)
        return F.silu(first) * second

    def prepared(self, x: Tensor, norm: RMSNorm | None) -> tuple[Tensor, RMSNorm | None, bool]:
        """What a kernel is given: inputs, the norm that it applies itself, and whether it rounds
        each row of inputs to E4M3."""
        return x, norm, False

    def _fused(
        self,
        x: Tensor,
        norm: RMSNorm | None,
        gated: bool,
        residual: Tensor | None,
        only: tuple[int, int] | None,
    ) -> Tensor:
        # only builds of torch for GPUs bring Triton
        from quaver.nn.kernels.operands import Around
        from quaver.nn.kernels.skinny import skinny

        given, own, rounded = self.prepared(x, norm)
        around = Around(
            None if own is None else own.weight,
            0.0 if own is None else own.eps,
            rounded,
            self.input_scale if rounded else None,
            gated,
            None if residual is None else residual.reshape(-1, residual.shape[-1]),
        )
        kept = self.kept(*(only or (0, self.out_features)))
        y = skinny(given.reshape(-1, x.shape[-1]), kept, around)
        return y.view(*x.shape[:-1], -1)


def _normed(x: Tensor, norm: RMSNorm) -> Tensor:
    """In one launch."""
    # only builds of torch for GPUs bring Triton
    from quaver.nn.kernels.inputs import normed

    return normed(x.reshape(-1, x.shape[-1]), norm.weight, norm.eps).view(x.shape)


class Linear(Product):
    """A product with W of shape [out, in] in the dtype that the recipe gives its role.

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
        self.role, self.out_features, self.input_scale = role, out_features, None
        self.tf32 = False  # whether a GPU may multiply fp32 as TF32
        self.weight = nn.Parameter(torch.empty(out_features, in_features, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype)) if bias else None

    @property
    def dtype(self) -> torch.dtype:
        """What inputs must be in, outside of autocast."""
        return self.weight.dtype

    def whole(self, x: Tensor) -> Tensor:
        return self._product(x, self.weight, self.bias)

    @property
    def has_kernel(self) -> bool:
        return self.weight.is_cuda and self.weight.dtype in (torch.bfloat16, torch.float16)

    def kept(self, start: int, stop: int) -> Kept:
        return Kept(self.weight[start:stop])

    def settle(self) -> None:
        """Lay the loaded weight out for where it lives.

        On a CPU, column-major: a product with one row then reads it at 13.6 GB/s where the usual
        order gives 9.9 (fp32; bf16: 14.5 and 10.1; an AMD EPYC with two cores).
        """
        if self.weight.device.type == "cpu" and self.weight.shape[0] >= self.weight.shape[1]:
            self.weight.data = self.weight.data.t().contiguous().t()

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        bias = None if self.bias is None else self.bias[start:stop]
        return self._product(x, self.weight[start:stop], bias)

    def drop_rows(self, count: int) -> None:
        """Forget the first `count` outputs."""
        self.out_features -= count
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
