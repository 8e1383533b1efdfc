"""Which utterances are shown, and whose sound is put into the page."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quaver.comparing.page_parts.utterances import Both, Utterance
from quaver.comparing.speaking import CANDIDATE, REFERENCE

WORDS, FIT = "wer", "alignment"  # what utterances are ordered by
RANDOM = 3  # utterances that chance shows
MOST_PAIRS = 20  # that the blind test plays
MOST_SOUND = 8_000_000  # characters of sound in the page


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown, each with the reason; and what the blind test plays."""

    shown: list[tuple[str, Both]]
    blind: list[Both]


def ranked(utterances: Sequence[Mapping[str, Utterance]]) -> list[Both]:
    """Those that both sides spoke, worst first: by what words the candidate lost, then by how
    much worse its sound fits the text."""
    pairs = [
        Both(each[REFERENCE], each[CANDIDATE])
        for each in utterances
        if REFERENCE in each and CANDIDATE in each
    ]
    return sorted(pairs, key=lambda both: (-(both.change(WORDS) or 0.0), both.change(FIT) or 0.0))


def choose(pairs: Sequence[Both], seed: int) -> Choice:
    """The worst, the median, and some at random; the blind test has random ones only, or its
    share would be of hand-picked pairs. `pairs` are ranked."""
    if not pairs:
        return Choice([], [])
    audible = [both for both in pairs if both.reference.heard and both.candidate.heard]
    order = random.Random(seed).sample(audible, len(audible))
    shown = [("Worst", pairs[0])]
    if len(pairs) > 2:
        shown.append(("Median", pairs[len(pairs) // 2]))
    known = {both.key for _, both in shown}
    drawn = [both for both in order if both.key not in known][:RANDOM]
    shown += [(f"At random, {place}", both) for place, both in enumerate(drawn, 1)]
    return Choice(shown, order[:MOST_PAIRS])


class Sounds:
    """Addresses of players, until the page is as large as it may be."""

    def __init__(self, room: int = MOST_SOUND) -> None:
        self._room = room
        self._players: dict[str, str | None] = {}

    def player(self, utterance: Utterance) -> str | None:
        """A data address; None without sound, or where it is too much for the page."""
        name = utterance.name
        if name not in self._players:
            found = utterance.player_data()
            if found is not None and len(found) > self._room:
                found = None
            self._room -= len(found or "")
            self._players[name] = found
        return self._players[name]

    def has(self, utterance: Utterance) -> bool:
        """Whether the page has a player of it already."""
        return self._players.get(utterance.name) is not None
