"""What attention multiplies keys and values by: columns of a product, which are heads' digits.

Each head has a column a digit, and behind all of them are columns of zeros, where a product on
tensor cores has more.
"""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.digits import beyond, first_digit, gathered


@triton.jit
def written(x, unit, digits: tl.constexpr, whole: tl.constexpr, each: tl.constexpr) -> tl.tensor:
    """Digits of numbers, fp32 [n, columns] whose columns are `each` times the same; what one is
    worth in the first is `unit`, [columns] or one for all."""
    if digits == 0:
        return x
    rest = x * (1.0 / unit)  # a power of two
    place = tl.arange(0, x.shape[1])[None, :] % each
    found = tl.zeros(x.shape, tl.float32)
    for number in tl.static_range(digits):
        digit = first_digit(rest, whole, not whole)  # 127.5 would be 128
        found = tl.where(place == number, digit, found)
        rest = beyond(rest, digit, whole)
    return found


@triton.jit
def repeated(x, each: tl.constexpr) -> tl.tensor:
    """[n, heads] -> [n, heads * each]."""
    n: tl.constexpr = x.shape[0]
    heads: tl.constexpr = x.shape[1]
    return tl.reshape(tl.broadcast_to(x[:, :, None], (n, heads, each)), (n, heads * each))


@triton.jit
def filled(x, times: tl.constexpr, whole: tl.constexpr) -> tl.tensor:
    """[n, columns] -> [n, times * columns], with zeros behind."""
    n: tl.constexpr = x.shape[0]
    columns: tl.constexpr = x.shape[1]
    if times > 1:
        if whole:
            own = tl.arange(0, times)[None, :, None] == 0
            x = tl.where(own, tl.broadcast_to(x[:, None, :], (n, times, columns)), 0.0)
            x = tl.reshape(x, (n, times * columns))
        else:  # joined, each number stays with its thread: faster, but int8 would spill registers
            beside = tl.permute(tl.join(x, tl.zeros_like(x)), (0, 2, 1))
            x = filled(tl.reshape(beside, (n, 2 * columns)), times // 2, whole)
    return x


@triton.jit
def numbers(sums, times: tl.constexpr, each: tl.constexpr, whole: tl.constexpr) -> tl.tensor:
    """Sums of columns [n, times * heads * each], most of them of zeros -> of numbers [n, heads]."""
    n: tl.constexpr = sums.shape[0]
    if times > 1:
        sums = tl.sum(tl.reshape(sums, (n, times, sums.shape[1] // times)), 1)
    return gathered(sums, each, whole)
