"""The sampler: logits to choices on the device, for all streams at once, without a host sync.

Each slot has its own parameters and seed, kept in tensors. Randomness is a pure function of
(seed, how many choices the stream has made, choice), so what a stream draws does not depend on
which others run beside it and repeats on every device, up to rounding of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quaver.core.protocols import Prompt
from quaver.core.random import seed_key, stream_key, uniform
from quaver.core.types import SamplingParams

MAX_WINDOW = 4096


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Repetition penalty of Keskar et al. (2019): seen choices lose, whatever their sign."""
    worse = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, worse, logits)


def truncate(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Logits [n, choices] with what top-k, top-p and min-p leave out at -inf.

    Parameters are [n, 1]. In this order, each on what the one before left, as Hugging Face does.
    """
    ranked = logits.sort(dim=-1, descending=True).values
    last = torch.where(top_k > 0, top_k, logits.shape[-1]).clamp(max=logits.shape[-1]) - 1
    ranked = ranked.masked_fill(ranked < ranked.gather(-1, last), -torch.inf)
    probability = ranked.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    # what top-k left out stays out, also where rounding leaves the sum of all below top_p
    keep = (before < top_p) & (probability >= min_p * probability[:, :1]) & (ranked > -torch.inf)
    lowest = torch.where(keep, ranked, torch.inf).amin(dim=-1, keepdim=True)
    return logits.masked_fill(logits < lowest, -torch.inf)


class SamplerState:
    """What the sampler knows of each slot; all on the device, a row a slot."""

    def __init__(self, slots: int, choices: Sequence[int], device: torch.device) -> None:
        def column(dtype: torch.dtype) -> Tensor:
            return torch.ones(slots, 1, dtype=dtype, device=device)

        self.temperature = column(torch.float32)
        self.top_k = column(torch.int64)
        self.top_p = column(torch.float32)
        self.min_p = column(torch.float32)
        self.penalty = column(torch.float32)
        self.window = column(torch.int64)
        self.key = column(torch.int64)  # of the seed
        self.made = column(torch.int64)  # choices
        # how often each choice stands in the penalty's window, [slots, positions * widest]
        self.seen = torch.zeros(
            slots, len(choices) * max(choices), dtype=torch.int16, device=device
        )
        # the same choices in order, a ring; only kept while any slot has a window
        self.ring = torch.zeros(slots, MAX_WINDOW, dtype=torch.int64, device=device)
        self.written = column(torch.int64)


class Sampler:
    """Sampling parameters, seeds and penalty memory of all slots.

    `kernel` draws in one launch on a GPU; see `kernels/sampling.py`.
    """

    def __init__(
        self, slots: int, choices: Sequence[int], device: torch.device, kernel: bool = False
    ) -> None:
        self.state = SamplerState(slots, choices, device)
        self._width, self._kernel = max(choices), kernel
        self._columns = torch.arange(self._width, device=device)
        self._windowed: set[int] = set()

    @property
    def has_windows(self) -> bool:
        """Whether any slot's penalty forgets: a step then does more."""
        return bool(self._windowed)

    def open(self, slot: int, params: SamplingParams, seed: int, prompt: Prompt) -> None:
        """Give a slot to a stream. What the prompt has spoken counts as seen."""
        state = self.state
        # filled, not assigned, which would copy from the host and wait for the device
        state.temperature[slot].fill_(params.temperature)
        state.top_k[slot].fill_(params.top_k)
        state.top_p[slot].fill_(params.top_p)
        state.min_p[slot].fill_(params.min_p)
        state.penalty[slot].fill_(params.repetition_penalty)
        state.window[slot].fill_(params.repetition_window)
        state.key[slot].fill_(int(seed_key(torch.tensor([seed]))))
        state.made[slot].zero_()
        state.seen[slot].zero_()
        window = params.repetition_window
        spoken = [position * self._width + choice for position, choice in prompt.spoken]
        spoken = spoken[-window:] if window else spoken
        if spoken:
            index = torch.tensor(spoken, device=state.seen.device)
            state.seen[slot].scatter_add_(0, index, torch.ones_like(index, dtype=torch.int16))
            if window:
                state.ring[slot, : len(spoken)] = index
        state.written[slot].fill_(len(spoken))
        self._windowed.discard(slot)
        if window:
            self._windowed.add(slot)

    def move(self, source: int, target: int) -> None:
        """Let a slot go on as another, which is free then."""
        for each in vars(self.state).values():
            each[target] = each[source]
        if source in self._windowed:
            self._windowed.add(target)
        self.close(source)

    def close(self, slot: int) -> None:
        self._windowed.discard(slot)

    def __call__(self, position: int, logits: Tensor) -> Tensor:
        """Logits [n, choices] of the first n slots -> choices [n]; see `core.protocols.Choose`."""
        n, width = logits.shape
        state, start = self.state, position * self._width
        if self._kernel:
            # only builds of torch for GPUs bring Triton
            from quaver.engine.kernels import sampling

            return sampling.choose(state, start, logits, self.has_windows)
        seen = state.seen[:n, start : start + width] > 0
        logits = penalise(logits.float(), seen, state.penalty[:n])
        greedy = state.temperature[:n] == 0
        logits = logits / torch.where(greedy, 1.0, state.temperature[:n])
        logits = truncate(logits, state.top_k[:n], state.top_p[:n], state.min_p[:n])
        # Gumbel's trick: the largest of logit + noise is a draw from their softmax
        key = stream_key(state.key[:n], state.made[:n])
        noise = -(-uniform(key, self._columns[None, :width]).log()).log()
        choice = torch.where(greedy, logits, logits + noise).argmax(dim=-1, keepdim=True)
        state.made[:n] += 1
        self._remember(start + choice)
        return choice[:, 0]

    def _remember(self, entry: Tensor) -> None:
        """Count entries [n, 1] as seen, and uncount those that leave a window."""
        n, state = len(entry), self.state
        seen = state.seen[:n]
        seen.scatter_add_(1, entry, torch.ones_like(entry, dtype=torch.int16))
        if not self.has_windows:
            return
        window, written = state.window[:n], state.written[:n]
        leaving = state.ring[:n].gather(1, (written - window) % MAX_WINDOW)
        gone = (window > 0) & (written >= window)
        seen.scatter_add_(1, leaving, -gone.to(torch.int16))
        state.ring[:n].scatter_(1, written % MAX_WINDOW, entry)
        written += 1
