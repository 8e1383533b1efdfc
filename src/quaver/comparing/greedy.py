"""Is an engine that is fast still right? Its most probable choices against plain PyTorch's.

The engine speaks as it was measured, with its kernels and recorded steps, always taking what is
most probable. The same weights in plain PyTorch are told what it said, and asked what they would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from quaver.comparing.forced import Logits, logits
from quaver.engine.engine import Job
from quaver.loading import Loaded
from quaver.nn.linear import Product
from quaver.quantizing.speech import Spoken
from quaver.text.reading import read_text

FRAMES = 24  # two seconds
# Between two that rounding tells apart. Random weights amplify it: in fp8, those of 28 layers and
# Orpheus-3B's gain put 1.8 between choices where each product is off by bf16's last bit, and 2.2
# between fp8 and bf16. A choice at random is some 4 off, the worst of 168 some 7.
MOST_NATS = 2.0


@dataclass(frozen=True, slots=True)
class Greedy:
    """How the engine's choices stand in what plain PyTorch holds probable."""

    choices: int
    same: float  # share that is the most probable
    worst_nats: float  # by which one that is not is less probable

    @property
    def right(self) -> bool:
        return self.worst_nats <= MOST_NATS


def greedy(side: Loaded, text: str, frames: int = FRAMES) -> Greedy | None:
    """At most so many frames of `text`'s first segment. None if the model has nothing to say, as
    random weights may not."""
    voice = next(iter(side.prompts.voices), None)
    segment = read_text(text, side.prompts, voice).segments[0]
    prompt = side.prompts.prompt(segment.text, voice, None)
    sampling = replace(side.sampling, temperature=0.0, repetition_penalty=1.0)
    each = side.model.positions_per_frame
    engine = side.engine(1, len(prompt.tokens) + (frames + 2) * each)
    stream = engine.submit(Job(prompt, sampling, 0, frames))
    said = [*stream]
    if not said:
        return None
    codes = torch.stack(said)
    tokens = torch.cat(
        (torch.tensor(prompt.tokens), side.model.layout.to_tokens(codes).flatten().cpu())
    )
    with _plain(side.model):
        found = logits(side, Spoken(tokens, codes.numel()))
    return standing(found, codes.cpu())


def standing(found: Logits, codes: Tensor) -> Greedy:
    """Of codes [frames, positions] in logits by position, each [frames, choices]."""
    gaps = torch.stack(
        [
            own.amax(-1) - own.gather(-1, chosen[:, None])[:, 0]
            for own, chosen in zip(found, codes.long().unbind(1), strict=True)
        ]
    )
    return Greedy(codes.numel(), float((gaps == 0).double().mean()), float(gaps.max()))


@contextmanager
def _plain(model: nn.Module) -> Iterator[None]:
    """No product in a kernel of ours, for as long as this lasts."""
    fused = [m for m in model.modules() if isinstance(m, Product) and m.fused]
    for product in fused:
        product.fused = False
    try:
        yield
    finally:
        for product in fused:
            product.fused = True
