"""The floor: no decode step is faster than reading what it must read, or multiplying what it must.

A step of n streams reads every weight in play once, and each stream's keys and values once. What a
device can do is measured on the device itself, right before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEAST_BYTES = 1 << 22  # of a buffer whose reading is timed
REPEATS, SECONDS = 15, 0.5  # at least: a GPU that was idle has low clocks
SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices whose product is timed


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a device was measured to do."""

    read_bytes_per_s: float  # from wherever a buffer as large as a step's weights lies
    flops_per_s: float  # of a large product in bf16; a multiplication and an addition are two


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step of a model must do to make a token for each stream."""

    weight_bytes: int  # read once, for all streams
    weights: int  # numbers that each stream's token is multiplied by
    position_bytes: float  # of keys and values, read once a live position of each stream

    def bytes(self, streams: int, live: float) -> float:
        """`live` positions in the mean of each stream."""
        return self.weight_bytes + streams * live * self.position_bytes

    def flops(self, streams: int) -> float:
        return 2.0 * streams * self.weights

    def tokens_per_second(self, streams: int, live: float, ceilings: Ceilings) -> float:
        """The most that one of `streams` streams can get."""
        reading = self.bytes(streams, live) / ceilings.read_bytes_per_s
        return 1 / max(reading, self.flops(streams) / ceilings.flops_per_s)


def measure_ceilings(device: str, weight_bytes: int) -> Ceilings:
    """Read and multiply on `device`. The buffer is as large as the step's weights, so that a cache
    helps the floor as much as it could help the step."""
    import torch

    place = torch.device(device)
    buffer = torch.ones(max(weight_bytes, LEAST_BYTES) // 4, dtype=torch.int32, device=place)
    reading = _seconds(buffer.amax, place)
    side = SIDE[place.type]
    matrix = torch.randn(side, side, device=place).to(torch.bfloat16)
    multiplying = _seconds(lambda: matrix @ matrix, place)
    return Ceilings(buffer.nbytes / reading, 2.0 * side**3 / multiplying)


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    """The shortest duration of an action, on the device's own clock where it has one."""
    import torch

    action()
    durations: list[float] = []
    while len(durations) < REPEATS or sum(durations) < SECONDS:
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            action()
            stop.record()
            stop.synchronize()
            durations.append(start.elapsed_time(stop) / 1e3)
        else:
            started = time.perf_counter()
            action()
            durations.append(time.perf_counter() - started)
    return min(durations)
