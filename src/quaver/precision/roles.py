"""Roles (the parts that can differ in precision) and formats (how their numbers are kept)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Role(StrEnum):
    """A part of a model that can have a precision of its own."""

    EMBED = "embed"
    BACKBONE = "backbone"
    HEAD = "head"
    KV = "kv"
    CODEC = "codec"


class Format(StrEnum):
    """How the numbers of one role are kept and multiplied."""

    FP32 = "fp32"
    BF16 = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype in which this format is stored."""
        import torch

        return {Format.FP32: torch.float32, Format.BF16: torch.bfloat16}[self]
