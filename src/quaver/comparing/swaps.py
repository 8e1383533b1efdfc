"""Which part did it: the reference with one part of the candidate, and what that alone changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quaver.comparing.forced import logits
from quaver.loading import Loaded
from quaver.loading.mixture import Part, mixed
from quaver.precision import Role
from quaver.quality.metrics.agreement import Agreement, agreement
from quaver.quality.metrics.metric import Score
from quaver.quality.stats import Estimate, mean
from quaver.quantizing.speech import Spoken

ROLES = (Role.EMBED, Role.BACKBONE, Role.HEAD, Role.KV)  # those that choose what is said


@dataclass(frozen=True, slots=True)
class Swap:
    """The reference with `part` from the candidate, reading what the reference said.

    kl: nats a code, against the reference as it is.
    """

    part: Part
    kl: Estimate


def parts_of(side: Loaded) -> list[Part]:
    """Roles first, then layers by number."""
    layers = range(len(side.model.backbone.layers))
    return [*map(Part, ROLES), *(Part(Role.BACKBONE, layer) for layer in layers)]


def swap(
    reference: Loaded,
    candidate: Loaded,
    said: Sequence[tuple[str, Spoken]],
    progress: Callable[[int], None],
) -> list[Swap]:
    """Every part by itself. `said` is what the reference said, by text."""
    mixtures = {part: mixed(reference, candidate, part) for part in parts_of(reference)}
    scores: dict[Part, dict[str, list[Score]]] = {part: {} for part in mixtures}
    done = 0
    for text, spoken in said:
        exact = logits(reference, spoken)
        for part, mixture in mixtures.items():
            pairs = zip(exact, logits(mixture, spoken), strict=True)
            whole = sum((agreement(r, c) for r, c in pairs), Agreement())
            scores[part].setdefault(text, []).append(Score(whole.kl_nats, whole.count))
            done += 1
            progress(done)
    return [Swap(part, mean(found)) for part, found in scores.items() if found]
