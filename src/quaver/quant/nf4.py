"""nf4: weights as the sixteen levels of NormalFloat, with one scale for 64 of them.

The levels are quantiles of a normal distribution, exact at zero (Dettmers et al., 2023, QLoRA,
appendix E). Two to a byte, the first in the high half.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.core.errors import InputError
from quaver.quant.layer import QuantisedLinear, kept, scales

GROUP = 64
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class Nf4Linear(QuantisedLinear):
    """`weight` uint8 [out, in / 2], `scale` bf16 [out, in / 64, 1]."""

    weight: Tensor
    scale: Tensor

    def quantise(self, weight: Tensor) -> None:
        if self.in_features % GROUP:
            raise InputError(
                f"nf4 keeps weights in groups of {GROUP} along the input, and {self.in_features} "
                "inputs do not divide into them; choose another format for these layers"
            )
        groups = weight.float().unflatten(-1, (-1, GROUP))
        self.scale = kept(scales(groups, 1.0))
        levels = torch.tensor(LEVELS, device=weight.device)
        between = (levels[1:] + levels[:-1]) / 2
        index = torch.bucketize((groups / self.scale.float()).flatten(-2), between)
        high, low = index.to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
        self.weight = kept(high << 4 | low)

    def dequantised(self, start: int, stop: int) -> Tensor:
        packed = self.weight[start:stop]
        index = torch.stack((packed >> 4, packed & 15), dim=-1).flatten(-2).int()
        levels = torch.tensor(LEVELS, device=packed.device)[index]
        groups = levels.unflatten(-1, (-1, GROUP)) * self.scale[start:stop].float()
        return groups.flatten(-2)
