"""Guards against a model that has lost its way: loops in the codes, silence in the sound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class LoopGuard:
    """Trips when the last frames are the same few, over and over.

    Speech never repeats seven codes a frame exactly; a model stuck in a loop does. Periods up to
    `longest` frames count once they fill `repeats` turns and at least `shortest` frames.
    """

    def __init__(self, longest: int = 24, repeats: int = 3, shortest: int = 24) -> None:
        self._longest, self._repeats, self._shortest = longest, repeats, shortest
        self._frames: list[tuple[int, ...]] = []

    def push(self, frame: Sequence[int]) -> bool:
        """Whether the stream is looping, this frame included."""
        frames = self._frames
        last = tuple(frame)
        seen = last in frames[-self._longest :]  # almost never, and told much faster
        frames.append(last)
        del frames[: -self._longest * self._repeats]
        return seen and any(self._loops(period) for period in range(1, self._longest + 1))

    def _loops(self, period: int) -> bool:
        span = max(self._repeats * period, self._shortest)
        if len(self._frames) < span or self._frames[-1] != self._frames[-1 - period]:
            return False
        tail = self._frames[-span:]
        return tail[period:] == tail[:-period]


class SilenceGuard:
    """Trips after `seconds` without a sample above the threshold, wherever chunks begin and end."""

    def __init__(self, sample_rate: int, seconds: float = 3.0, threshold: float = 1e-3) -> None:
        self._limit = int(seconds * sample_rate)
        self._threshold = threshold
        self._quiet = 0

    def push(self, samples: NDArray[np.float32]) -> int | None:
        """How many of these samples there are until the stream has gone silent; None while it has
        not."""
        above = np.abs(samples) > self._threshold
        if self._quiet + len(samples) < self._limit:  # as nearly always, and told much faster
            self._quiet = int(above[::-1].argmax()) if above.any() else self._quiet + len(samples)
            return None
        loud = np.flatnonzero(above)
        begins = np.concatenate(([-self._quiet], loud + 1))  # of stretches without sound
        silent = np.flatnonzero(np.append(loud, len(samples)) - begins >= self._limit)
        if len(silent):
            return int(begins[silent[0]]) + self._limit
        self._quiet = len(samples) - int(begins[-1])
        return None
