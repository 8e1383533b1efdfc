"""Random numbers as a pure function of (seed, stream, position).

A stateful generator would make a stream's noise depend on its neighbours in the batch, on chunk
sizes and on the device. Here each number has an address, so results repeat everywhere.

The functions use tensors' methods alone, so this module needs no torch. The mixer is the
public-domain 32-bit finaliser of MurmurHash3 (A. Appleby).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: neighbouring positions land far apart


def _mix(x: Tensor) -> Tensor:
    """32-bit avalanche on int64 tensors whose values lie in 0..2^32-1."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def seed_key(seed: Tensor) -> Tensor:
    """Key of a seed, which is any int64."""
    low, high = seed & _MASK, (seed >> 32) & _MASK
    return _mix(low ^ _mix(high ^ _GOLDEN))


def stream_key(seeded: Tensor, stream: Tensor | int) -> Tensor:
    """Key of one stream of numbers, of those that a `seed_key` has; shapes broadcast."""
    return _mix(seeded ^ (stream & _MASK))


def uniform(key: Tensor, position: Tensor) -> Tensor:
    """float32 in (0, 1), never the ends, at int64 positions; shapes broadcast."""
    # masked before it is multiplied as well, or compilers fold both into one overflowing index
    bits = _mix((key + (position & _MASK) * _GOLDEN) & _MASK)
    # 23 bits: with one more, adding the half would round the largest up to 1
    return ((bits >> 9).float() + 0.5) * 2.0**-23


def normal(key: Tensor, position: Tensor) -> Tensor:
    """Standard normal float32 by Box and Muller (1958), two uniforms a number."""
    radius = (-2.0 * uniform(key, 2 * position).log()).sqrt()
    return radius * (2.0 * math.pi * uniform(key, 2 * position + 1)).cos()
