"""How many streams, how long, and kept how: what memory has room for.

A cache that does not fit is made smaller before any stream starts, in an order that costs least
first: fewer streams at once, shorter ones, then keys and values in eight bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from quaver.core.errors import UnsupportedError
from quaver.core.protocols import CacheSpec
from quaver.precision import Format

SHORTEST = 1024  # positions: about 11 s of Orpheus's speech


@dataclass(frozen=True, slots=True)
class CachePlan:
    """A cache that fits; `notes` say what is less than was asked for, and why."""

    slots: int
    max_length: int
    kv: Format
    notes: tuple[str, ...] = ()


def cache_bytes(spec: CacheSpec, slots: int, max_length: int, kv: Format) -> float:
    """Of keys and values."""
    numbers = 2 * spec.layers * spec.kv_heads * slots * max_length
    scales = 2.0 if kv is Format.INT8 else 0.0
    return numbers * (spec.head_dim * kv.bits / 8 + scales)


def fit_cache(spec: CacheSpec, slots: int, max_length: int, kv: Format, free: float) -> CachePlan:
    """The cache that was asked for, or the next smaller one that fits into `free` bytes.

    UnsupportedError if none does.
    """
    few, length, kept = slots, max_length, kv
    while few > 1 and cache_bytes(spec, few, length, kept) > free:
        few = few // 2
    while length > SHORTEST and cache_bytes(spec, few, length, kept) > free:
        length = max(SHORTEST, length // 2)
    if kept.bits > Format.INT8.bits and cache_bytes(spec, few, length, kept) > free:
        kept = Format.INT8
    if (needed := cache_bytes(spec, few, length, kept)) > free:
        raise UnsupportedError(
            f"one stream of {length:,} positions needs {needed / 1e9:.2f} GB for keys and values "
            f"and {max(free, 0) / 1e9:.2f} GB are free; free memory, give a recipe with smaller "
            "weights, or a smaller model"
        )
    changes = (
        (few, slots, f"{few} streams at once instead of {slots}"),
        (length, max_length, f"{length:,} positions a stream instead of {max_length:,}"),
        (kept, kv, f"keys and values in {kept} instead of {kv}"),
    )
    notes = tuple(
        f"{text}: memory has room for no more" for now, asked, text in changes if now != asked
    )
    return CachePlan(few, length, kept, notes)
