"""CUDA graphs: a step that was run once is recorded, and replayed in one launch from then on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch

_ALONE = threading.Lock()


@contextmanager
def unrecorded() -> Iterator[None]:
    """For work beside what other threads do, which may break what they record: they do not
    meanwhile."""
    with _ALONE:
        yield


@contextmanager
def _no_collector() -> Iterator[None]:
    """What the garbage collector frees may be on the GPU, and freeing it there while something is
    recorded breaks the recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Recorded:
    """CUDA graphs by shape. They share their memory, since one runs at a time."""

    def __init__(self) -> None:
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._ran: set[Hashable] = set()

    def run(self, shape: Hashable, step: Callable[[], None]) -> None:
        """Run `step`, whose work must hang on `shape` and on tensors that stay in place alone."""
        if shape not in self._ran:  # what is compiled or allocated once cannot be recorded
            step()
            self._ran.add(shape)
            return
        if shape not in self._graphs:
            pool = next((graph.pool() for graph in self._graphs.values()), None)
            graph = torch.cuda.CUDAGraph()
            with _ALONE, _no_collector(), torch.cuda.graph(graph, pool=pool):
                step()
            self._graphs[shape] = graph
        self._graphs[shape].replay()
