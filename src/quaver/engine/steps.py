"""Launching steps, and fetching what they made.

A step is some thousand small operations. A GPU can have them recorded: the first of a shape runs
as it is, the second becomes a CUDA graph, and from then on that is replayed, in one launch. On a
CPU most of them can be traced (`nn/traced.py`). Counts and limits are rounded up, so that few
shapes occur. All that a step reads and writes stays where it is: hidden states, cache, sampler, and
what it made, whose copy to the host nobody waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from quaver.core.protocols import FrameModel
from quaver.engine.cache import DecodeView, KVCache, PackView
from quaver.engine.sampling import Sampler
from quaver.nn.recorded import Recorded
from quaver.nn.sent import Fetched, fetched, sent
from quaver.nn.traced import Traced

LENGTH_STEP = 64  # as it runs, a step reads keys up to a multiple of this
LEAST_LENGTH = 256  # recorded, up to a power of two, this or more
LEAST_TRACED = 512  # and traced
COUNT_STEP = 8  # recorded, it has a power of two or a multiple of this many slots, or
COUNT_SHARE = 8  # of a power of two by this, where that is more: less than a quarter too many
MANY = 64  # slots, from which kernels need not know how long the longest stream is
LEAST_PACK = 64  # inputs of recorded prompts: a power of two, this or more
LEAST_PROMPT = 16  # inputs of a prompt that is recorded before anybody asks; few are shorter


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
        # what stands for other elements, as in a cache of float8, cannot be traced
        traceable = device.type == "cpu" and cache.keeping.kind is cache.keeping.storage
        self._traced = Traced(model.weights) if graphs and traceable else None
        self._packs: dict[tuple[str, int, int], tuple[Tensor, ...]] = {}

    def prefill(self, prompts: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Read whole prompts, each into an open slot, in one pass."""
        tokens: list[int] = []
        owners: list[int] = []
        positions: list[int] = []
        ends: list[tuple[int, int, int]] = []
        for slot, prompt in prompts:
            tokens += prompt
            owners += [slot] * len(prompt)
            positions += range(len(prompt))
            ends.append((slot, len(tokens) - 1, len(prompt)))
        if self._recorded is not None:
            # More inputs of the last prompt: nothing before looks at them, and what they leave in
            # the cache is written over before anything does.
            more = _power(max(len(tokens), LEAST_PACK)) - len(tokens)
            tokens += [tokens[-1]] * more
            owners += [owners[-1]] * more
            positions += range(positions[-1] + 1, positions[-1] + 1 + more)
            ends += [ends[-1]] * (_power(len(ends)) - len(ends))
        device = self._hidden.device
        positions = [min(position, self._cache.max_length - 1) for position in positions]
        pack = torch.tensor([owners, positions])
        embedded = self._model.embedded(torch.tensor([tokens]))
        given = (embedded, sent(pack, device), sent(torch.tensor(ends), device))
        if self._recorded is None:
            self._read(*given)
            return
        shape = ("prompts", len(tokens), len(ends))
        if shape not in self._packs:
            self._packs[shape] = tuple(torch.empty_like(each) for each in given)
        for mine, each in zip(self._packs[shape], given, strict=True):
            mine.copy_(each)
        self._recorded.run(shape, lambda: self._read(*self._packs[shape]))

    def move(self, source: int, target: int) -> None:
        """Let a slot go on with the hidden state of another."""
        self._hidden[target] = self._hidden[source]

    def launch(self, count: int, longest: int) -> Fetched:
        """One frame for each of the first `count` slots, none of which will have more than
        `longest` positions afterwards: its codes and, last, whether the stream stopped, int64
        [slots, codes + 1]."""
        if self._recorded is None:
            self._run(count, longest)
            return fetched(self._made)
        count, limit = self._rounded(count, longest)
        shape = (count, limit, self._sampler.has_windows)
        self._recorded.run(shape, lambda: self._step(count, limit))
        return fetched(self._made)

    def record(self) -> None:
        """Record every step that there is, while no slot is open."""
        most = self._cache.max_length
        if self._traced is not None:
            limits = [LEAST_TRACED]
            while limits[-1] < most:
                limits.append(2 * limits[-1])
            with self._traced.at_once():
                for limit, count in product(limits, range(1, self._slots + 1)):  # short ones first
                    self._run(count, limit)
        if self._recorded is None:
            return
        lengths = [*range(LEAST_LENGTH, most, LEAST_LENGTH), most]
        counts = range(1, self._slots + 1)
        for shape in sorted({self._rounded(*each) for each in product(counts, lengths)}):
            for _ in range(2):  # the first of a shape runs as it is
                self.launch(*shape).wait()

    def record_prompts(self, most: int) -> None:
        """Record every pass of prompts that are `LEAST_PROMPT` long or longer, `most` inputs in
        all, while no slot is open."""
        if self._recorded is None:
            return
        sizes = [LEAST_PACK << i for i in range((most // LEAST_PACK).bit_length())]
        for inputs in sizes:
            for power in range(_power(self._slots).bit_length()):
                length = inputs >> power
                if length < LEAST_PROMPT:
                    break
                for _ in range(2):  # as above
                    self.prefill([(0, [0] * length)] * (1 << power))
        self._cache.close(0)

    def _run(self, count: int, longest: int) -> None:
        """A step that is not recorded."""
        if self._traced is None:
            limit = _up(longest, LENGTH_STEP)
        else:
            limit = _power(max(longest, LEAST_TRACED))
        self._step(count, min(limit, self._cache.max_length))

    def _rounded(self, count: int, longest: int) -> tuple[int, int]:
        """Slots and limit of the recorded step for so many, none longer than that."""
        count, most = min(_count(count), self._slots), self._cache.max_length
        if self._cache.has_kernels and count >= MANY:
            return count, most
        return count, min(_power(max(longest, LEAST_LENGTH)), most)

    def _read(self, embedded: Tensor, pack: Tensor, ends: Tensor) -> None:
        """Owners and positions of inputs [2, t]; of each prompt its slot, its last input and its
        length [n, 3]."""
        hidden = self._model.prefill(embedded, PackView(self._cache, *pack))
        slots, last, lengths = ends.unbind(1)
        self._hidden.index_copy_(0, slots, hidden[0].index_select(0, last).to(self._hidden.dtype))
        self._cache.lengths.index_copy_(0, slots, lengths)

    def _step(self, count: int, limit: int) -> None:
        view = DecodeView(self._cache, count, limit, self._traced)
        frame = self._model.frame(self._hidden[:count], view, self._sampler)
        view.settle()
        self._hidden[:count] = frame.hidden
        self._made[:count, :-1] = frame.codes
        self._made[:count, -1] = frame.stopped


def _count(streams: int) -> int:
    """Slots of a recorded step for so many."""
    power = _power(streams)
    return power if streams < COUNT_STEP else _up(streams, max(COUNT_STEP, power // COUNT_SHARE))


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()
