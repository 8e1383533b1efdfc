"""int4: weights as whole numbers of -8 to 7 with one scale for 128 of them.

Two to a byte, plus 8, the first in the low half: read as 32-bit words, that is what
compressed-tensors calls pack-quantized.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.nn.weight import Packing
from quaver.precision import Format
from quaver.quant.layer import DTYPE, QuantisedLinear, scales

GROUP = 128
LARGEST = 7.0
# Smaller scales cut a group's extremes and serve the rest better: the best of these is taken.
SHRINK = tuple(1.0 - 0.03 * step for step in range(8))


class Int4Linear(QuantisedLinear):
    """`weight` uint8 [out, in / 2], `scale` bf16 [out, in / 128]."""

    format = Format.INT4
    group = GROUP
    packing = Packing.INT4
    least_sqnr = 13.0

    @classmethod
    def encode(cls, groups: Tensor) -> tuple[Tensor, Tensor]:
        scale = best_scale(groups)
        return pack(to_whole(groups, scale).flatten(1)), scale

    @classmethod
    def decode(cls, elements: Tensor) -> Tensor:
        pairs = torch.stack((elements & 15, elements >> 4), dim=-1)
        return pairs.flatten(-2).float() - 8.0


def best_scale(groups: Tensor) -> Tensor:
    """bf16 scales [..., 1] of groups [..., inputs] with the least squared error of `SHRINK`'s."""
    widest = scales(groups, LARGEST)
    best, least = widest, torch.full_like(widest, torch.inf, dtype=torch.float32)
    for factor in SHRINK:
        scale = (widest.float() * factor).to(DTYPE)
        error = to_whole(groups, scale) * scale.float() - groups
        loss = error.square().mean(dim=-1, keepdim=True)
        best = torch.where(loss < least, scale, best)
        least = torch.minimum(loss, least)
    return best


def to_whole(groups: Tensor, scale: Tensor) -> Tensor:
    """The nearest whole numbers, as fp32."""
    return (groups / scale.float()).round().clamp(-LARGEST - 1, LARGEST)


def pack(whole: Tensor) -> Tensor:
    """fp32 [out, in] of -8 to 7 -> uint8 [out, in / 2]."""
    low, high = (whole + 8.0).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return high << 4 | low
