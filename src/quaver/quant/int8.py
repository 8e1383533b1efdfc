"""int8: weights as whole numbers of -127 to 127 with one scale a row.

On a CPU a product of few rows runs in ATen's mixed kernel, which reads the integers as they are:
0.63 ms for seven layers like the bundled voice's, where fp32 takes 2.5 (one core of an AMD EPYC).
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.quant.layer import DTYPE, QuantisedLinear, kept, scales

LARGEST = 127.0
FEW_ROWS = 16  # above, dequantising once is faster than the kernel


class Int8Linear(QuantisedLinear):
    """`weight` int8 [out, in], `scale` bf16 [out, 1]."""

    reads_on_cpu = True
    weight: Tensor
    scale: Tensor

    def quantise(self, weight: Tensor) -> None:
        self.scale = kept(scales(weight, LARGEST))
        whole = (weight.float() / self.scale.float()).round().clamp(-LARGEST, LARGEST)
        self.weight = kept(whole.to(torch.int8))

    def dequantised(self, start: int, stop: int) -> Tensor:
        return self.weight[start:stop].float() * self.scale[start:stop].float()

    def product(self, x: Tensor, start: int, stop: int) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        if x.device.type != "cpu" or x.dtype != DTYPE or len(flat) > FEW_ROWS:
            return super().product(x, start, stop)
        y = torch._weight_int8pack_mm(flat, self.weight[start:stop], self.scale[start:stop, 0])
        return y.view(*x.shape[:-1], stop - start)
