"""Inputs as sums of digits in the format of a weight.

Tensor cores multiply numbers of one width, and a quantised weight has fewer bits than its inputs.
So an input is written as digits of the weight's width, a column of the product each: inputs of few
rows leave most columns unused. The weight is multiplied as it lies in memory, and columns are added
up as a number's digits are.

A digit is worth a power of two less than the one before. Two of E4M3 hold all eight significant
bits of bf16, and three whole numbers 21 bits: what is rounded lies far below the largest of a row.
A format that rounds its inputs to E4M3 by a scale of their own has one digit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

E4M3 = torch.float8_e4m3fn
LARGEST = tl.constexpr(torch.finfo(E4M3).max)
# as in quant.fp8: no scale is below fp32's smallest normal number
LEAST = tl.constexpr(torch.finfo(E4M3).max * torch.finfo(torch.float32).tiny)
LEAST_ROW = tl.constexpr(2.0**-60)  # a row whose largest number is smaller is a row of zeros
EXPONENT = tl.constexpr(0x7F800000)  # of a float's bits


@dataclass(frozen=True, slots=True)
class Digits:
    """How inputs are written."""

    count: int = 0  # none: inputs are multiplied as they are
    whole: bool = False  # numbers of -127 to 127; or E4M3

    @property
    def columns(self) -> int:
        """Of a product, for each row of inputs."""
        return triton.next_power_of_2(max(1, self.count))


PLAIN, ROUNDED, FLOATS, WHOLE = Digits(), Digits(1), Digits(2), Digits(3, whole=True)


@triton.jit
def unit_of(most, count: tl.constexpr, whole: tl.constexpr) -> tl.tensor:
    """What one is worth in the first digit of a row whose largest number is `most`."""
    if count == 1:  # it just fits E4M3
        unit = tl.div_rn(tl.maximum(most, LEAST), LARGEST)
    else:
        bits = tl.maximum(most, LEAST_ROW).to(tl.int32, bitcast=True) & EXPONENT
        unit = (bits - ((6 if whole else 7) << 23)).to(tl.float32, bitcast=True)
    return unit


@triton.jit
def first_digit(x, whole: tl.constexpr, bounded: tl.constexpr = False) -> tl.tensor:
    """Of numbers x, fp32. `bounded` if none is beyond the largest."""
    if whole:
        # to the nearest, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction
        x = (x + 12582912.0) - 12582912.0
        if not bounded:
            x = tl.minimum(tl.maximum(x, -127.0), 127.0)
    else:
        if not bounded:
            x = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
        x = x.to(tl.float8e4nv, fp_downcast_rounding="rtne").to(tl.float32)
    return x


@triton.jit
def beyond(x, digit, whole: tl.constexpr) -> tl.tensor:
    """What is left of x without its first digit, as the next digit counts: 2^7 or 2^4 for one."""
    return (x - digit) * (128.0 if whole else 16.0)


@triton.jit
def taken(
    x, whole: tl.constexpr, bounded: tl.constexpr, last: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The first digit of numbers x, fp32, as its format keeps it, and what is left as `beyond`,
    unless it is the last. `bounded` as for `first_digit`."""
    if whole:
        near = x
        if not bounded:
            near = tl.minimum(tl.maximum(x, -127.0), 127.0)
        # A sum with 1.5 * 2^23 has the rounded number in its lowest bits: conversions are slower.
        moved = near + 12582912.0
        element = moved.to(tl.int32, bitcast=True).to(tl.int8)
        x = beyond(x, moved - 12582912.0, whole)
    elif last:
        x = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
        element = x.to(tl.float8e4nv, fp_downcast_rounding="rtne")
    else:
        digit = first_digit(x, whole)
        # Not what was just converted: of four together, Triton 3.6's assembler reads two back from
        # a register that nobody wrote.
        element = digit.to(tl.float8e4nv)
        x = beyond(x, digit, whole)
    return element, x


@triton.jit
def over(x, unit, count: tl.constexpr) -> tl.tensor:
    """Numbers x in units, rounded as a division rounds."""
    each = tl.div_rn(1.0, unit)
    found = x * each
    if count == 1:  # else a unit is a power of two, and this exact
        found = tl.fma(tl.fma(-found, unit, x), each, found)
    return found


@triton.jit
def gathered(sums, columns: tl.constexpr, whole: tl.constexpr) -> tl.tensor:
    """Sums [n, rows * columns] of digits -> of numbers, fp32 [n, rows], in units of their rows."""
    sums = sums.to(tl.float32)
    if columns > 1:
        place = tl.arange(0, columns)
        exponent = 127 - (7 if whole else 4) * place
        share = (exponent << 23).to(tl.float32, bitcast=True)
        each = tl.reshape(sums, (sums.shape[0], sums.shape[1] // columns, columns))
        sums = tl.sum(each * share[None, None, :], 2)
    return sums
