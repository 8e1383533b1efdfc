"""int8 and int8-dynamic: weights as whole numbers of -127 to 127 with one scale a row.

On a CPU a product of few rows runs in ATen's mixed kernel, which reads the integers as they are:
0.63 ms for seven layers like the bundled voice's, where fp32 takes 2.5 (one core of an AMD EPYC).
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.precision import Format
from quaver.precision.weight import QuantisedWeight
from quaver.quant.layer import DTYPE, FEW_ROWS, QuantisedLinear, scales

LARGEST = 127.0


class Int8Linear(QuantisedLinear):
    """`weight` int8 [out, in], `scale` bf16 [out, 1]."""

    format = Format.INT8
    least_sqnr = 30.0

    def __init__(self, weight: QuantisedWeight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        # others' scales may be wider, or for groups
        self.reads_on_cpu = self.scale.dtype is DTYPE and self.scale.shape[1] == 1

    @classmethod
    def encode(cls, groups: Tensor) -> tuple[Tensor, Tensor]:
        scale = scales(groups, LARGEST)
        whole = (groups / scale.float()).round().clamp(-LARGEST, LARGEST)
        return whole.to(torch.int8).flatten(1), scale

    @classmethod
    def decode(cls, elements: Tensor) -> Tensor:
        return elements.float()

    def product(self, x: Tensor, start: int, stop: int) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        fits = x.device.type == "cpu" and x.dtype is DTYPE and self.reads_on_cpu
        if not fits or len(flat) > FEW_ROWS:
            return super().product(x, start, stop)
        weight: Tensor = self.weight
        scale: Tensor = self.scale
        if stop - start < self.out_features:  # slices of everything would cost a third of a product
            weight, scale = weight[start:stop], scale[start:stop]
        y = torch._weight_int8pack_mm(self.round_input(flat, None), weight, scale.view(-1))
        return y.view(*x.shape[:-1], stop - start)


class Int8DynamicLinear(Int8Linear):
    """Each token's inputs are rounded to whole numbers too, with a scale when they come.

    A step is the largest input over 127.5, as compressed-tensors has it.
    """

    format = Format.INT8_DYNAMIC
    rounds_inputs = True

    @classmethod
    def round_input(cls, x: Tensor, scale: Tensor | None) -> Tensor:
        whole, step = _to_whole(x)
        return (whole * step).to(x.dtype)

    def product(self, x: Tensor, start: int, stop: int) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        fits = self.in_features % 8 == (stop - start) % 8 == 0 and self.scale.shape[1] == 1
        if not x.is_cuda or len(flat) <= FEW_ROWS or not fits:
            return super().product(x, start, stop)
        whole, step = _to_whole(flat)
        sums = torch._int_mm(whole.to(torch.int8), self.weight[start:stop].t())
        y = (sums.float() * step * self.scale[start:stop, 0].float()).to(x.dtype)
        return y.view(*x.shape[:-1], stop - start)


def _to_whole(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers of -128 to 127 as fp32, and what one of them is worth, [..., 1]."""
    wide = x.float()
    step = wide.abs().amax(dim=-1, keepdim=True) / (LARGEST + 0.5)
    step = step.clamp(min=torch.finfo(torch.float32).tiny)
    return (wide / step).round().clamp(-LARGEST - 1, LARGEST), step
