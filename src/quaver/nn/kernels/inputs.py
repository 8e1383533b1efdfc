"""What becomes of inputs before a product of several rows: a norm and digits, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.digits import E4M3, PLAIN, Digits, beyond, first_digit, unit_of
from quaver.nn.kernels.launch import on, starting_early, turn


@triton.jit
def _prepare(
    x_pointer,
    norm_pointer,
    out_pointer,
    unit_pointer,
    inputs,
    eps,
    normed: tl.constexpr,
    digits: tl.constexpr,
    whole: tl.constexpr,
    columns: tl.constexpr,
    halved: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, block)
    inside = k < inputs
    weight = tl.full((block,), 1.0, tl.float32)
    if normed:
        weight = tl.load(norm_pointer + k, mask=inside, other=0.0)
    turn(early)
    x = tl.load(x_pointer + row * inputs + k, mask=inside, other=0.0)
    kind = x.dtype
    if normed:
        wide = x.to(tl.float32)
        rms = tl.rsqrt(tl.sum(wide * wide, 0) / inputs + eps)
        x = (wide * rms * weight).to(kind)
    place = out_pointer + row * columns * inputs
    if halved:
        place += (k % 2) * (inputs // 2) + k // 2
    else:
        place += k
    if digits > 0:
        rest = x.to(tl.float32)
        unit = unit_of(tl.max(tl.abs(rest), 0), digits, whole)
        tl.store(unit_pointer + row, unit)
        rest = tl.div_rn(rest, unit)
        for number in tl.static_range(columns):
            digit = first_digit(rest, whole) if number < digits else tl.zeros_like(rest)
            tl.store(place + number * inputs, digit.to(out_pointer.dtype.element_ty), mask=inside)
            rest = beyond(rest, digit, whole)
    else:
        tl.store(place, x, mask=inside)


def prepare(
    x: Tensor, norm: Tensor | None, eps: float, digits: Digits, halved: bool
) -> tuple[Tensor, Tensor | None]:
    """x [rows, in], contiguous -> what is multiplied [rows * digits.columns, in], and what the
    first digits of each row are worth, fp32 [rows, 1], if there are digits.

    norm: the fp32 weight [in] of an RMS norm. halved: every second input comes behind all others,
    as they meet weights of which two share a byte.
    """
    rows, inputs = x.shape
    kind, unit = x.dtype, None
    if digits.count:
        kind = torch.int8 if digits.whole else E4M3
        unit = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    out = torch.empty(rows * digits.columns, inputs, dtype=kind, device=x.device)
    block = triton.next_power_of_2(inputs)
    with on(x.device):
        _prepare[(rows,)](
            x,
            norm,
            out,
            unit,
            inputs,
            eps,
            normed=norm is not None,
            digits=digits.count,
            whole=digits.whole,
            columns=digits.columns,
            halved=halved,
            block=block,
            num_warps=max(4, min(16, block // 512)),
            **starting_early(x.device),
        )
    return out, unit


def normed(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    """The RMS norm of x [rows, in], contiguous, in its dtype."""
    return prepare(x, norm, eps, PLAIN, False)[0]
