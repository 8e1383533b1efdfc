"""fp8-weight and fp8-e5m2: weights as eight-bit floats with one scale a row.

E4M3 has three bits of mantissa and reaches 448; E5M2 two, and 57,344 (Micikevicius et al., 2022).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from quaver.quant.layer import QuantisedLinear, kept, scales


class Fp8Linear(QuantisedLinear):
    """`weight` float8 [out, in], `scale` bf16 [out, 1]."""

    kind: ClassVar[torch.dtype] = torch.float8_e4m3fn
    weight: Tensor
    scale: Tensor

    def quantise(self, weight: Tensor) -> None:
        self.scale = kept(scales(weight, torch.finfo(self.kind).max))
        # a rounded scale is at most 2^-9 too small, and what is that much too large rounds back
        self.weight = kept((weight.float() / self.scale.float()).to(self.kind))

    def dequantised(self, start: int, stop: int) -> Tensor:
        return self.weight[start:stop].float() * self.scale[start:stop].float()


class Fp8E5M2Linear(Fp8Linear):
    """The same with a wider range and a coarser step."""

    kind: ClassVar[torch.dtype] = torch.float8_e5m2
