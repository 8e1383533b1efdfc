"""The floor: no decode step is faster than reading what it must read, or multiplying what it must.

A step of n streams reads every weight in play once, and each stream's keys and values once. What a
device can do is measured on the device itself, right before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from quaver.engine.threads import cpu_threads
from quaver.precision import Format, Role, find_recipe

if TYPE_CHECKING:
    import torch

LEAST_BYTES = 1 << 22  # of a buffer whose reading is timed
REPEATS, SECONDS = 15, 0.5  # at least: a GPU that was idle has low clocks
SIDE = {"cuda": 8192, "cpu": 512}  # of the square matrices whose product is timed
ROWS = (1, 16)  # of inputs of a step: one stream, and as many as read weights as they are kept
INTEGERS = frozenset({Format.INT8, Format.INT8_DYNAMIC})  # kept as they are on a CPU


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a device was measured to do."""

    read_bytes_per_s: float  # from wherever a buffer as large as a step's weights lies
    flops_per_s: float  # of a product in a recipe's formats; multiplying and adding are two


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


def measure_ceilings(
    device: str, weight_bytes: int, formats: Collection[Format] = (Format.BF16,)
) -> Ceilings:
    """The best that `device` does by reading and by products in any of `formats`.

    What is read is as large as the step's weights, so that a cache helps the floor as much as it
    could help the step. A CPU is timed with one thread and with all, since beside other processes
    one can be faster. A GPU multiplies weights of fewer bits as bf16 here.
    """
    import torch

    place = torch.device(device)
    buffer = torch.ones(max(weight_bytes, LEAST_BYTES) // 4, dtype=torch.int32, device=place)
    dtypes = {
        # TF32 has half the speed of bf16, and plain fp32 far less
        Format.BF16.dtype if chosen is Format.TF32 and place.type == "cuda" else chosen.dtype
        for chosen in formats
    }
    side = SIDE[place.type]
    squares = [torch.randn(side, side, device=place).to(dtype) for dtype in dtypes]
    rates = []
    for threads in sorted({1, torch.get_num_threads()}) if place.type == "cpu" else [None]:
        with cpu_threads(threads):
            rates.append((buffer.nbytes / _seconds(buffer.amax, place), 0.0))
            for square in squares:
                product = partial(torch.matmul, square, square)
                rates.append((0.0, 2.0 * side**3 / _seconds(product, place)))
            for chosen in formats if place.type == "cpu" else ():
                rates += _cpu_products(chosen, buffer.nbytes)
    return Ceilings(max(read for read, _ in rates), max(flops for _, flops in rates))


def formats_used(recipe: str) -> set[Format]:
    """Formats of the layers that a step multiplies by."""
    found = find_recipe(recipe)
    own = {found.format(Role.BACKBONE), found.format(Role.HEAD)}
    return own | {chosen for _, chosen in found.layers}


def _cpu_products(chosen: Format, nbytes: int) -> list[tuple[float, float]]:
    """Bytes and operations a second of products like a step's: few rows, and weights [out, in] of
    `nbytes` in all, kept as `chosen` is kept on a CPU."""
    import torch

    whole = chosen in INTEGERS
    dtype = torch.int8 if whole else chosen.dtype
    weights = torch.ones(
        max(nbytes // (SIDE["cpu"] ** 2 * dtype.itemsize), 1), *[SIDE["cpu"]] * 2, dtype=dtype
    )
    scale = torch.ones(SIDE["cpu"], dtype=torch.bfloat16)
    found, matrices = [], weights.unbind()
    for rows in ROWS:
        x = torch.ones(rows, SIDE["cpu"], dtype=torch.bfloat16 if whole else dtype)

        def step(x: torch.Tensor = x) -> None:
            for weight in matrices:
                if whole:
                    torch._weight_int8pack_mm(x, weight, scale)
                else:
                    torch.nn.functional.linear(x, weight)

        seconds = _seconds(step, torch.device("cpu"))
        found.append((weights.nbytes / seconds, 2.0 * rows * weights.numel() / seconds))
    return found


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
