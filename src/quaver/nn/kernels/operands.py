"""What a product of few rows is given, and what its inputs are written as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.digits import FLOATS, PLAIN, ROUNDED, WHOLE, Digits
from quaver.nn.weight import Kept, Packing

T = TypeVar("T")
LEAST_COLUMNS = 16  # of a product on tensor cores
MOST_SPLITS = 8  # of inputs: sums are shared by so many programs
MOST_COLUMNS = 64  # of digits; rows that need more are multiplied as they are


@dataclass(frozen=True, slots=True)
class Around:
    """What a product is fused with. A residual, [rows, out], is added last."""

    norm: Tensor | None = None  # fp32 weight [in] of an RMS norm of the inputs
    eps: float = 0.0
    rounded: bool = False  # each row of inputs to E4M3, by a scale of its own,
    step: Tensor | None = None  # or by this one, []
    gated: bool = False  # silu(first half of the outputs) * second half
    residual: Tensor | None = None


def digits_for(weight: Kept, rows: int, rounded: bool) -> Digits:
    """How inputs are written for a weight."""
    if rounded:
        return ROUNDED
    kind = weight.elements.dtype
    if weight.packing is Packing.INT4 or kind is torch.int8:
        digits = WHOLE
    else:
        digits = FLOATS if weight.packing is Packing.NONE and kind.itemsize == 1 else PLAIN
    return digits if rows * digits.columns <= MOST_COLUMNS else PLAIN


def dtype_for(kind: torch.dtype, digits: Digits, gpu: bool) -> tl.dtype:
    """What inputs in `kind` are multiplied as."""
    if not gpu:
        return tl.float32  # Triton's interpreter has no products of bf16
    if digits.count:
        return tl.int8 if digits.whole else tl.float8e4nv
    return tl.float16 if kind is torch.float16 else tl.bfloat16


def fitting(choices: tuple[T, T, T, T], outputs: int, inputs: int, gated: bool) -> T:
    """Of choices for products of more outputs than inputs, of as many, of fewer, and gated ones."""
    wide, square, deep, gates = choices
    if gated:
        return gates
    return wide if outputs > inputs else square if outputs == inputs else deep
