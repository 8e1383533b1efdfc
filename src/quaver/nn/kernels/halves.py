"""Products of fp32 numbers on tensor cores, about as exact as fp32's own.

A number is the sum of two in 16 bits: itself in fp16 and, 2^11 times as large, what that leaves.
Both have 11 bits, so 22 are multiplied, in three products of fp16 with sums in fp32 (Ootomo and
Yokota, 2022); tensor cores multiply fp16 at twice TF32's rate. The largest number is fp16's,
65,504; below 2^-12 digits are lost, and nothing is left below 2^-36.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def halves(weight: Tensor, exact: bool = True) -> Tensor:
    """fp32 [...] -> fp16 [2, ...]: each number, and 2^11 times what it loses. Not exact, [1, ...]:
    the number alone, whose 11 bits are TF32's, and one product."""
    coarse = weight.half()
    if not exact:
        return coarse[None]
    return torch.stack((coarse, ((weight - coarse.float()) * 2.0**11).half()))


@triton.jit
def dot(
    pointer, n, k, rows, inputs, all_rows, x, large, small, exact: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Rows n, all below `rows`, and inputs k of halves [1 or 2, all_rows, inputs] times x [k,
    columns], added to sums of which the second stands for 2^-11 times as much."""
    inside = (n[:, None] < rows) & (k[None, :] < inputs)
    places = pointer + n[:, None].to(tl.int64) * inputs + k[None, :]
    weight = tl.load(places, mask=inside, other=0.0)
    coarse = x.to(tl.float16)
    large = tl.dot(weight, coarse, large)
    if exact:
        fine = tl.load(places + tl.cast(all_rows, tl.int64) * inputs, mask=inside, other=0.0)
        rest = ((x - coarse.to(tl.float32)) * 2048.0).to(tl.float16)
        small = tl.dot(weight, rest, small)
        small = tl.dot(fine, coarse, small)
    return large, small
