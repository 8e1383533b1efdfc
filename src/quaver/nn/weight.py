"""A weight as it lies in memory, for kernels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor


class Packing(IntEnum):
    """How elements lie in bytes."""

    NONE = 0
    INT4 = 1  # two to a byte, the even one in its low half, 8 more than it is
    NF4 = 2  # two to a byte, the even one in its high half, as an index


@dataclass(frozen=True, slots=True)
class Kept:
    """A weight [out, in]: what an element stands for, times its row's or its group's scale."""

    elements: Tensor  # [out, in], or [out, in / 2] of two to a byte
    scale: Tensor | None = None  # [out, groups]
    packing: Packing = Packing.NONE
    levels: Tensor | None = None  # what an index stands for, fp32 [16]
