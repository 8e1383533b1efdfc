"""Both models read the same tokens: what the reference said, and what its codes sound like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quaver.engine.cache import DecodeView, KVCache, PrefillView
from quaver.loading import Loaded
from quaver.quality.metrics.agreement import Agreement, agreement
from quaver.quantizing.speech import Spoken

BATCH = 8  # streams that a model is put beside itself in
BATCH_FRAMES = 24  # of each: two seconds
Logits = list[Tensor]  # by position in the frame, [frames, choices]


@dataclass(frozen=True, slots=True)
class Replay:
    """One utterance: agreement by position in the frame, and the mean shift of the probability
    to stop, which is a choice at the first."""

    text: str
    positions: tuple[Agreement, ...]
    stop_shift: float

    @property
    def whole(self) -> Agreement:
        return sum(self.positions, Agreement())


def logits(side: Loaded, spoken: Spoken) -> Logits:
    """What `side` would say next, told what was said; keys and values kept as it keeps them."""
    length = len(spoken.tokens) - 1
    cache = KVCache(side.model.cache_spec, 1, length, side.keeping, side.device)
    with torch.inference_mode(), side.threads.run("logits", length):
        view = PrefillView(cache, 0, 0, length)
        found = side.model.forced(spoken.tokens[None].to(side.device), spoken.codes, view)
        return [each.cpu() for each in found]


def replay(
    reference: Loaded,
    candidate: Loaded,
    said: Sequence[tuple[str, Spoken]],
    progress: Callable[[int], None],
) -> list[Replay]:
    """Each utterance through both. `said` is what the reference said, by text."""
    found = []
    for number, (text, spoken) in enumerate(said):
        found.append(_replay(text, logits(reference, spoken), logits(candidate, spoken)))
        progress(number + 1)
    return found


def in_batch(side: Loaded, said: Sequence[tuple[str, Spoken]]) -> list[Replay]:
    """A model beside others of its kind: utterances in one batch, against each alone."""
    said = said[:BATCH]
    frames = min(BATCH_FRAMES, *(one.codes // side.model.positions_per_frame for _, one in said))
    together = stepped(side, [one for _, one in said], frames)
    alone = [stepped(side, [one], frames)[0] for _, one in said]
    pairs = zip(said, alone, together, strict=True)
    return [_replay(text, one, other) for (text, _), one, other in pairs]


def stepped(side: Loaded, spoken: Sequence[Spoken], frames: int) -> list[Logits]:
    """What `side` would say next, told the first `frames` frames of each as the engine goes: one
    at a time, all streams at once."""
    model, count, each = side.model, len(spoken), side.model.positions_per_frame
    prompts = [one.tokens[: -one.codes].cpu() for one in spoken]
    length = max(map(len, prompts)) + frames * each
    told = [model.layout.to_frames(one.tokens[-one.codes :])[:frames] for one in spoken]
    codes = torch.stack(told).to(side.device)  # [streams, frames, codes]
    kept: list[Logits] = [[] for _ in range(each)]
    with torch.inference_mode():
        cache = KVCache(model.cache_spec, count, length, side.keeping, side.device)
        hidden = []
        for slot, prompt in enumerate(prompts):
            cache.open(slot)
            view = PrefillView(cache, slot, 0, len(prompt))
            hidden.append(model.prefill(model.embedded(prompt[None]), view)[:, -1])
        state, steps = torch.cat(hidden), DecodeView(cache, count, length)
        for frame in codes.unbind(1):
            with side.threads.run(("told", count), 1):
                state = model.frame(state, steps, _Told(frame, kept)).hidden
    rows = [torch.stack(position, 1) for position in kept]  # [streams, frames, choices] each
    return [[row[stream] for row in rows] for stream in range(count)]


class _Told:
    """Chooses what it is told, and keeps what would have been likely; see `protocols.Choose`."""

    def __init__(self, codes: Tensor, kept: list[Logits]) -> None:
        self._codes, self._kept = codes, kept

    def __call__(self, position: int, logits: Tensor) -> Tensor:
        self._kept[position].append(logits.float().cpu())
        return self._codes[:, position]


def _replay(text: str, ours: Logits, theirs: Logits) -> Replay:
    pairs = list(zip(ours, theirs, strict=True))
    stop = [side.softmax(-1)[:, -1] for side in pairs[0]]
    shift = float((stop[1] - stop[0]).abs().mean())
    return Replay(text, tuple(agreement(r, c) for r, c in pairs), shift)
