"""What becomes of inputs before a product of several rows: a norm and digits, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.digits import E4M3, PLAIN, Digits, over, taken, unit_of
from quaver.nn.kernels.launch import on, starting_early, turn


@triton.jit
def _put(x, pointer, k, inputs, count, digits: tl.constexpr, whole: tl.constexpr):
    """Numbers x, in units, as `digits` lines of `inputs`: the first `count` of places k on each."""
    if digits == 0:
        tl.store(pointer + k, x, mask=k < count)
    else:
        for number in tl.static_range(digits):
            element, x = taken(x, whole, number > 0, number == digits - 1)
            tl.store(pointer + number * inputs + k, element, mask=k < count)


@triton.jit
def _prepare(
    x_pointer,
    norm_pointer,
    given_pointer,
    out_pointer,
    unit_pointer,
    inputs,
    eps,
    normed: tl.constexpr,
    given: tl.constexpr,
    digits: tl.constexpr,
    whole: tl.constexpr,
    columns: tl.constexpr,
    packs: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """Write one row as it is multiplied, and what its first digits are worth. Of `packs` inputs
    that meet weights in one byte, the second comes behind all others."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, block)
    weight = tl.full((block,), 1.0, tl.float32)
    if normed:
        weight = tl.load(norm_pointer + k, mask=k < inputs, other=0.0)
    turn(early)
    out = out_pointer + row * columns * inputs
    x = tl.load(x_pointer + row * inputs + k, mask=k < inputs, other=0.0)
    if normed:
        wide = x.to(tl.float32)
        rms = tl.rsqrt(tl.sum(wide * wide, 0) / inputs + eps)
        x = (wide * rms * weight).to(x.dtype)
    if digits > 0:
        x = x.to(tl.float32)
        if given:
            unit = tl.load(given_pointer).to(tl.float32)
        else:
            unit = unit_of(tl.max(tl.abs(x), 0), digits, whole)
        tl.store(unit_pointer + row, unit)
        x = over(x, unit, digits)
    if packs == 1:
        _put(x, out, k, inputs, inputs, digits, whole)
    else:
        half = tl.arange(0, block // 2)
        even, odd = tl.split(tl.reshape(x, (block // 2, 2)))
        _put(even, out, half, inputs, inputs // 2, digits, whole)
        _put(odd, out + inputs // 2, half, inputs, inputs // 2, digits, whole)


def prepare(
    x: Tensor,
    norm: Tensor | None,
    eps: float,
    digits: Digits,
    halved: bool,
    step: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """x [rows, in], contiguous -> what is multiplied [rows * digits.columns, in], and what the
    first digits of each row are worth, fp32 [rows, 1], if there are digits. A row may have more
    columns than digits; nothing is written there.

    norm: the fp32 weight [in] of an RMS norm. halved: every second input comes behind all others,
    as they meet weights of which two share a byte. step: what a first digit is worth [], if
    not what its row makes it.
    """
    rows, inputs = x.shape
    kind = x.dtype
    if digits.count:
        kind = torch.int8 if digits.whole else E4M3
    out, unit = torch.empty(rows * digits.columns, inputs, dtype=kind, device=x.device), None
    if digits.count:
        unit = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(inputs)
    with on(x.device):
        _prepare[(rows,)](
            x,
            norm,
            step,
            out,
            unit,
            inputs,
            eps,
            normed=norm is not None,
            given=step is not None,
            digits=digits.count,
            whole=digits.whole,
            columns=digits.columns,
            packs=2 if halved else 1,
            block=block,
            num_warps=max(4, min(16, block // 512)),
            **starting_early(x.device),
        )
    return out, unit


def normed(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    """The RMS norm of x [rows, in], contiguous, in its dtype."""
    return prepare(x, norm, eps, PLAIN, False)[0]
