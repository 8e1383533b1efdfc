"""Launching steps, and fetching what they made.

A step is some thousand small operations. A GPU can have them recorded: the first of a shape runs
as it is, the second becomes a CUDA graph, and from then on that is replayed, in one launch. Counts
and limits are rounded up, so that few shapes occur. All that a step reads and writes stays where it
is: hidden states, cache, sampler, and what it made, whose copy to the host nobody waits for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quaver.core.protocols import FrameModel
from quaver.engine.cache import DecodeView, KVCache, PrefillView
from quaver.engine.sampling import Sampler
from quaver.nn.recorded import Recorded

LENGTH_STEP = 64  # as it runs, a step reads keys up to a multiple of this
LEAST_LENGTH = 256  # recorded, up to a power of two, this or more
COUNT_STEP = 8  # recorded, it has a power of two or a multiple of this many slots


@dataclass(frozen=True, slots=True)
class Made:
    """Codes of each slot and, last, whether its stream stopped: int64 [slots, codes + 1]."""

    rows: Tensor  # on the host
    done: torch.cuda.Event | None  # rows are filled when it has happened

    def wait(self) -> Tensor:
        if self.done is not None:
            self.done.synchronize()
        return self.rows


class Steps:
    """One model with its cache, its sampler and its hidden states."""

    def __init__(
        self,
        model: FrameModel,
        cache: KVCache,
        sampler: Sampler,
        hidden_dtype: torch.dtype,
        graphs: bool,
    ) -> None:
        self._model, self._cache, self._sampler = model, cache, sampler
        self._slots, device = len(cache.lengths), cache.lengths.device
        self._hidden = torch.zeros(
            self._slots, model.hidden_size, dtype=hidden_dtype, device=device
        )
        self._made = torch.zeros(
            self._slots, len(model.choices) + 1, dtype=torch.int64, device=device
        )
        self._recorded = Recorded() if graphs and device.type == "cuda" else None

    def prefill(self, slot: int, prompt: Tensor) -> None:
        """Read a prompt [1, t], given on the host, into an open slot."""
        view = PrefillView(self._cache, slot, 0, prompt.shape[1])
        self._hidden[slot] = self._model.prefill(prompt, view)[0]

    def launch(self, count: int, longest: int) -> Made:
        """One frame for each of the first `count` slots, none of which will have more than
        `longest` positions afterwards."""
        most = self._cache.max_length
        if self._recorded is None:
            self._step(count, min(_up(longest, LENGTH_STEP), most))
            return Made(self._made.to("cpu", copy=True), None)
        count = min(_power(count) if count < COUNT_STEP else _up(count, COUNT_STEP), self._slots)
        limit = min(_power(max(longest, LEAST_LENGTH)), most)
        shape = (count, limit, self._sampler.has_windows)
        self._recorded.run(shape, lambda: self._step(count, limit))
        rows = torch.empty(self._made.shape, dtype=self._made.dtype, pin_memory=True)
        rows.copy_(self._made, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return Made(rows, done)

    def _step(self, count: int, limit: int) -> None:
        view = DecodeView(self._cache, count, limit)
        frame = self._model.frame(self._hidden[:count], view, self._sampler)
        self._hidden[:count] = frame.hidden
        self._made[:count, :-1] = frame.codes
        self._made[:count, -1] = frame.stopped


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()
