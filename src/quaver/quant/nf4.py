"""nf4: weights as the sixteen levels of NormalFloat, with one scale for 64 of them.

The levels are quantiles of a normal distribution, exact at zero (Dettmers et al., 2023, QLoRA,
appendix E). Two to a byte, the first in the high half.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.nn.weight import Packing
from quaver.precision import Format
from quaver.precision.weight import QuantisedWeight
from quaver.quant.layer import QuantisedLinear, scales

GROUP = 64
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class Nf4Linear(QuantisedLinear):
    """`weight` uint8 [out, in / 2], `scale` bf16 [out, in / 64]."""

    format = Format.NF4
    group = GROUP
    packing = Packing.NF4
    least_sqnr = 14.0

    def __init__(self, weight: QuantisedWeight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.levels = torch.tensor(LEVELS, device=self.weight.device)

    @classmethod
    def encode(cls, groups: Tensor) -> tuple[Tensor, Tensor]:
        scale = scales(groups, 1.0)
        levels = torch.tensor(LEVELS, device=groups.device)
        between = (levels[1:] + levels[:-1]) / 2
        index = torch.bucketize((groups / scale.float()).flatten(1), between)
        high, low = index.to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
        return high << 4 | low, scale

    @classmethod
    def decode(cls, elements: Tensor) -> Tensor:
        index = torch.stack((elements >> 4, elements & 15), dim=-1).flatten(-2).int()
        return torch.tensor(LEVELS, device=elements.device)[index]
