"""Roles (the parts that can differ in precision) and formats (how their numbers are kept)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Format(StrEnum):
    """How the numbers of one role are kept and multiplied."""

    FP32 = "fp32"
    TF32 = "tf32"  # fp32, multiplied by a GPU with ten bits of mantissa
    BF16 = "bf16"
    FP16 = "fp16"
    # Weights and inputs in eight bits: inputs rounded by a scale a token, one scale for all, or
    # one for 128 of them.
    FP8 = "fp8"
    FP8_STATIC = "fp8-static"
    FP8_BLOCK = "fp8-block"
    INT8_DYNAMIC = "int8-dynamic"
    # Weights in eight or four bits, multiplied as bf16.
    FP8_WEIGHT = "fp8-weight"
    FP8_E5M2 = "fp8-e5m2"
    INT8 = "int8"
    INT4 = "int4"
    NF4 = "nf4"

    @property
    def quantised(self) -> bool:
        """Whether weights are kept as small integers or floats with scales."""
        return self not in _DENSE

    @property
    def bits(self) -> float:
        """Of memory for a weight, scales included where they are many."""
        return _BITS.get(self, 8.0)

    @property
    def calibrated(self) -> bool:
        """Whether it needs to know the inputs that its layers will see."""
        return self is Format.FP8_STATIC

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype in which this format is multiplied and its activations are kept."""
        import torch

        wide = {Format.FP32: torch.float32, Format.TF32: torch.float32}
        return (wide | {Format.FP16: torch.float16}).get(self, torch.bfloat16)


_DENSE = frozenset({Format.FP32, Format.TF32, Format.BF16, Format.FP16})
_BITS = {
    **{Format.FP32: 32.0, Format.TF32: 32.0, Format.BF16: 16.0, Format.FP16: 16.0},
    **{Format.FP8_BLOCK: 8.125, Format.INT4: 4.125, Format.NF4: 4.25},
}


class Role(StrEnum):
    """A part of a model that can have a precision of its own."""

    EMBED = "embed"
    BACKBONE = "backbone"
    HEAD = "head"
    KV = "kv"
    CODEC = "codec"

    @property
    def allowed(self) -> frozenset[Format]:
        """Formats that this role can have."""
        if self in (Role.BACKBONE, Role.HEAD):
            return frozenset(Format)
        if self is Role.KV:
            return _DENSE | {Format.FP8, Format.FP8_E5M2, Format.INT8}
        if self is Role.EMBED:
            return frozenset(Format) - {Format.FP8_STATIC}  # a table has no inputs to calibrate
        # a codec's error is heard directly
        return frozenset({Format.FP32, Format.TF32}) if self is Role.CODEC else _DENSE
