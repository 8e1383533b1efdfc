"""A running service judges itself, and goes back to its reference precision part by part.

Utterances are judged as they are made, by metrics that need no second rendering. Every `window` of
them one look is taken: is the harm, against what the reference was measured to do, surely beyond a
gate's margin? One bad look may be chance, since looks are many; `strikes` of them in a row switch
the next part of `ladder` back, and looking starts anew. Nothing is ever switched forward again by
itself: a model that was caught once would come and go, and users would hear each change.

    watch = Watch(DEFAULTS, baseline, ladder=("kv", "backbone", "codec"), switch=model.revert)
    watch.hear({"failures": Score(0.0), "rtf": Score(0.31, weight=4.2)})
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quaver.quality.finding import Cell, Finding, Layer
from quaver.quality.gates import Gate, Outcome, judge
from quaver.quality.metrics.metric import NotMeasured, Score
from quaver.quality.stats import Estimate, Verdict, mean, share

log = logging.getLogger("quaver.watch")

WINDOW = 50  # utterances a look
STRIKES = 2  # bad looks in a row: by chance alone, one in 400 looks at a model on the margin
SHARES = frozenset({"failures"})  # metrics of things that did or did not happen


@dataclass(frozen=True, slots=True)
class Level:
    """What the reference was measured to do: a metric's estimate, and which way is better."""

    estimate: Estimate
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """One part that went back, after how many utterances, and for which requirements."""

    part: str
    after: int
    because: tuple[str, ...]


class Watch:
    """Counts what it hears; not thread-safe, and it keeps one window of scores."""

    def __init__(
        self,
        gates: Mapping[str, Gate],
        baseline: Mapping[str, Level],
        *,
        ladder: Sequence[str],
        switch: Callable[[str], None],
        window: int = WINDOW,
        strikes: int = STRIKES,
    ) -> None:
        if window < 2 or strikes < 1:
            raise ValueError(f"window {window} and strikes {strikes}; at least 2 and 1 are needed")
        self._gates = {n: g for n, g in gates.items() if g.enabled and g.metric in baseline}
        self._baseline, self._switch = baseline, switch
        self._ladder, self._window, self._strikes = list(ladder), window, strikes
        self._scores: dict[str, list[Score]] = {}
        self._in_window = self._bad_looks = 0
        self.heard = 0
        self.switched: list[Switched] = []
        self.looks: Counter[str] = Counter()  # by requirement: how many were bad
        self.missed: Counter[str] = Counter()  # by metric: utterances that it could not judge

    @property
    def alarmed(self) -> bool:
        """Whether the last look was bad."""
        return self._bad_looks > 0

    @property
    def exhausted(self) -> bool:
        """Whether all parts went back: what is still bad has another cause."""
        return not self._ladder

    def hear(self, scores: Mapping[str, Score | NotMeasured]) -> Switched | None:
        """Take an utterance's scores, by metric; returns what was switched, if anything."""
        self.heard += 1
        self._in_window += 1
        for name, score in scores.items():
            if isinstance(score, NotMeasured):
                self.missed[name] += 1
            else:
                self._scores.setdefault(name, []).append(score)
        return self._look() if self._in_window >= self._window else None

    def _look(self) -> Switched | None:
        bad = [each.name for each in self.outcomes() if each.decision.verdict is Verdict.FAIL]
        self._scores, self._in_window = {}, 0
        self.looks.update(bad)
        self._bad_looks = self._bad_looks + 1 if bad else 0
        if self._bad_looks < self._strikes:
            return None
        self._bad_looks = 0
        if not self._ladder:
            log.error("%s out of bounds, and every part is as in the reference", ", ".join(bad))
            return None
        done = Switched(self._ladder.pop(0), self.heard, tuple(bad))
        log.warning("%s out of bounds: %s goes back", ", ".join(bad), done.part)
        self._switch(done.part)
        self.switched.append(done)
        return done

    def outcomes(self) -> list[Outcome]:
        """What the gates say of the window as it is."""
        return judge(self._gates, [self._finding(name) for name in self._baseline])

    def _finding(self, name: str) -> Finding:
        level, scores = self._baseline[name], self._scores.get(name, [])
        now: Cell = NotMeasured("too few utterances")
        change: Cell = now
        if len(scores) >= max(2, self._window // 2):
            now = _level(name, scores)
            change = _less(now, level.estimate)
        null = NotMeasured("a service has no other seeds")
        better = level.higher_is_better
        return Finding(name, Layer.SPEECH, "", better, "", level.estimate, now, change, null)


def _level(name: str, scores: Sequence[Score]) -> Estimate:
    if name in SHARES:
        return share(sum(each.value > 0 for each in scores), len(scores))
    return mean({str(number): [each] for number, each in enumerate(scores)})


def _less(now: Estimate, before: Estimate) -> Estimate:
    """The difference of two independent estimates; their errors add as squares."""
    low = ((now.value - now.low) ** 2 + (before.high - before.value) ** 2) ** 0.5
    high = ((now.high - now.value) ** 2 + (before.value - before.low) ** 2) ** 0.5
    value = now.value - before.value
    return Estimate(value, value - low, value + high, now.n)
