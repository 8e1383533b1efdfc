"""`core.random` within kernels: the same numbers at the same addresses, in 32-bit arithmetic."""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.snake import sine_squared


@triton.jit
def mixed(x) -> tl.tensor:
    """MurmurHash3's finaliser on uint32."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def uniform(key, position) -> tl.tensor:
    """float32 in (0, 1) of uint32 keys at uint32 positions."""
    bits = mixed(key + position * 0x9E3779B9)
    return ((bits >> 9).to(tl.float32) + 0.5) * (2.0**-23)


@triton.jit
def normal(seed, stream, position) -> tl.tensor:
    """Standard normal float32 of int64 seeds, in one stream of numbers, at int64 positions."""
    low, high = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    key = mixed(mixed(low ^ mixed(high ^ 0x9E3779B9)) ^ stream.to(tl.uint32))
    place = position.to(tl.uint32) * 2
    radius = tl.sqrt_rn(-2.0 * tl.log(uniform(key, place)))
    return radius * (1.0 - 2.0 * sine_squared(uniform(key, place + 1)))
