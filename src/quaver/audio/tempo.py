"""Faster or slower at the same pitch, while it is made."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from quaver.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOWEST, FASTEST = 0.25, 4.0
SLOWEST_FILTER = 0.5  # of one atempo filter


class Tempo:
    """Push samples, get those that are ready; `finish` at the end. FFmpeg's atempo filter."""

    def __init__(self, sample_rate: int, speed: float) -> None:
        """`speed` 2 is twice as fast. InputError for what is not within 0.25 to 4."""
        if not SLOWEST <= speed <= FASTEST:
            raise InputError(f"the speed is {speed}; allowed is {SLOWEST} to {FASTEST}")
        import av
        from av.filter import Graph

        self._sample_rate = sample_rate
        self._empty = av.error.BlockingIOError, av.error.EOFError
        self._graph = Graph()
        source = self._graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")
        filters = [speed] if speed >= SLOWEST_FILTER else [speed**0.5] * 2
        chain = [self._graph.add("atempo", f"{each:.6f}") for each in filters]
        chain = [source, *chain, self._graph.add("abuffersink")]
        for one, other in pairwise(chain):
            one.link_to(other)
        self._graph.configure()

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples [n] in -1..1, n > 0 -> [m], perhaps none."""
        import av

        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._sample_rate
        self._graph.push(frame)
        return self._pull()

    def finish(self) -> NDArray[np.float32]:
        """The rest [m]. Nothing can be pushed afterwards."""
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> NDArray[np.float32]:
        ready: list[NDArray[Any]] = [np.zeros(0, np.float32)]
        while True:
            try:
                frame = self._graph.pull()
            except self._empty:
                return np.concatenate(ready)
            ready.append(frame.to_ndarray().reshape(-1))
