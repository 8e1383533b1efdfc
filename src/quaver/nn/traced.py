"""Layers without Python: what they do on a CPU is traced, and run by TorchScript from then on.

A small model's layers are hundreds of operations that take a few microseconds each, as long as
Python takes to ask for them. No compiler is needed, and the operations are the same ones in the
same order, so every bit of what they make is too.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PAYS_AFTER = 200  # runs: by count they gain what tracing takes; not tuned
MOST_TRACES = 16  # of one model, each of which holds some 16 MB for ever


class _Layers(nn.Module):
    """Layers whose inputs are what they find for themselves, so that a trace knows what changes."""

    def __init__(self, layers: Callable[[], Tensor]) -> None:
        super().__init__()
        self._layers = layers

    def forward(self, *given: Tensor) -> Tensor:
        return self._layers()


class Traced:
    """Traces by shape, of layers that read what they are given and `weights`.

    Any other tensor is taken to never change, and is never let go: TorchScript keeps a trace for
    the rest of the process.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = tuple(weights)
        self._runs: Counter[Hashable] = Counter()
        self._traces: dict[Hashable, Any] = {}
        self._pays_after = PAYS_AFTER

    def run(self, shape: Hashable, layers: Callable[[], Tensor], given: Sequence[Tensor]) -> Tensor:
        """What `layers` return, whose work must hang on `shape`, on what is `given` and on weights
        alone, and be the same if it is done again. They are traced once that pays."""
        made: Tensor
        if shape not in self._traces:
            self._runs[shape] += 1
            full = len(self._traces) == MOST_TRACES
            if full or self._runs[shape] <= self._pays_after:
                return layers()
            with warnings.catch_warnings():  # it is deprecated; see docs/decisions/008
                warnings.simplefilter("ignore")
                module, inputs = _Layers(layers), (*given, *self._weights)
                self._traces[shape] = torch.jit.trace(module, inputs, check_trace=False)
            return layers()  # once more: what came of them in the trace is not to be had
        # to improve on a trace takes seconds, and gains nothing
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            made = self._traces[shape](*given, *self._weights)
        return made

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block in which everything is traced when it first occurs."""
        self._pays_after = 0
        try:
            yield
        finally:
            self._pays_after = PAYS_AFTER
