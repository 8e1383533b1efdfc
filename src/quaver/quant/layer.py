"""What all quantised layers share: the maths in plain PyTorch, on any device.

A product dequantises the weight and multiplies in the dtype of the activations. That defines the
result; a format that has something faster for a device overrides `product`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.nn.linear import Linear
from quaver.precision import Role

DTYPE = torch.bfloat16  # of activations and scales


class QuantisedLinear(nn.Module):
    """y = x W^T (+ b), with W [out, in] kept in fewer bits: stands in for `Linear`.

    Rows of W never share a scale, so that any of them can be used alone.
    """

    reads_on_cpu: ClassVar[bool] = False  # whether `product` reads weights as kept, on a CPU too

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = None if bias is None else kept(bias.to(DTYPE))

    @classmethod
    def from_linear(cls, linear: Linear) -> Self:
        """Quantise a loaded layer, whose weight must be finite. InputError if the shape does not
        fit."""
        out_features, in_features = linear.weight.shape
        layer = cls(in_features, out_features, linear.bias)
        layer.quantise(linear.weight.detach())
        return layer

    def as_linear(self, role: Role) -> Linear:
        """A dense layer with the weight that this one computes with."""
        linear = Linear(self.in_features, self.out_features, DTYPE, self.bias is not None, role)
        linear.weight = kept(self.dequantised(0, self.out_features).to(DTYPE))
        linear.bias = self.bias
        return linear

    @property
    def dtype(self) -> torch.dtype:
        """What inputs must be in."""
        return DTYPE

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return self.rows(x, 0, self.out_features)

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs start..stop-1 only: the other rows of the weight are not read."""
        y = self.product(x, start, stop)
        return y if self.bias is None else y + self.bias[start:stop]

    def product(self, x: Tensor, start: int, stop: int) -> Tensor:
        """x [..., in] times rows start..stop-1 of the weight, transposed."""
        return F.linear(x, self.dequantised(start, stop).to(x.dtype))

    @abstractmethod
    def quantise(self, weight: Tensor) -> None:
        """Take a weight [out, in] of any float dtype."""

    @abstractmethod
    def dequantised(self, start: int, stop: int) -> Tensor:
        """Rows start..stop-1 of what the weight has become, fp32 [stop - start, in]."""


def kept(value: Tensor) -> nn.Parameter:
    """A tensor as a weight that is not trained; it counts among the model's bytes."""
    return nn.Parameter(value, requires_grad=False)


def scales(weight: Tensor, largest: float) -> Tensor:
    """Scales [..., 1] in bf16 with which the last dimension's extremes become `largest`.

    They are rounded before anything is divided by them, so what is stored is what was used. Zeros,
    and numbers too small to have a scale, get the scale 1 and become zeros.
    """
    scale = weight.float().abs().amax(dim=-1, keepdim=True) / largest
    return torch.where(scale >= torch.finfo(DTYPE).tiny, scale, 1.0).to(DTYPE)
