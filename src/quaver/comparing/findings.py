"""From utterances to findings, one a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from quaver.comparing.forced import Replay
from quaver.comparing.panel import Item
from quaver.comparing.speaking import AGAIN, CANDIDATE, REFERENCE, RTF, Heard, score
from quaver.quality.finding import Cell, Finding, Layer
from quaver.quality.metrics.metric import Kind, Metric, NotMeasured, Score
from quaver.quality.stats import Scores, difference, mean, share

MOST_MISSING = 0.1  # of utterances; with more of them unheard, the rest may not stand for all
FAILURES = "failures"
NO_CHANCE = NotMeasured("the same is read or decoded on both sides: chance has no part")
ITSELF = NotMeasured("the reference's own number is how far chance takes it from itself")
APART = NotMeasured("the number itself says how far the candidate is from the reference")
SAME = NotMeasured("it is what the candidate is compared with")


def speech_findings(
    heard: Mapping[str, Sequence[tuple[Item, Heard]]], metrics: Mapping[str, Metric | NotMeasured]
) -> list[Finding]:
    """Of utterances that each side made for itself."""
    found = []
    for name, metric in metrics.items():
        if isinstance(metric, NotMeasured):
            found.append(_unmeasured(name, metric))
        elif metric.kind is not Kind.PAIRED:
            sides = {side: _by_text(name, rows) for side, rows in heard.items()}
            level = _share if name == FAILURES else _mean
            cells = _cells(sides, level)
            if metric.kind is Kind.TWIN:  # the reference is compared with itself
                sides = {**sides, REFERENCE: sides[AGAIN]}
                cells = (*_cells(sides, level)[:3], ITSELF)
            unit, better = metric.unit, metric.higher_is_better
            found.append(Finding(name, Layer.SPEECH, unit, better, metric.version, *cells))
    speed = {side: _by_text(RTF, rows) for side, rows in heard.items()}
    found.append(Finding(RTF, Layer.SPEED, "s of work a s", False, "quaver", *_cells(speed, _mean)))
    return found


def forced_findings(
    replays: Sequence[Replay],
    control: Sequence[Replay] | NotMeasured,
    batched: Sequence[Replay] | NotMeasured,
) -> list[Finding]:
    """Of what both would say next. `control` is the reference against its fp32 self, `batched`
    against itself in a batch: what chance does, where all else is the same."""
    measures: tuple[tuple[str, str, bool, Callable[[Replay], Score]], ...] = (
        ("kl", "nats a code", False, lambda r: Score(r.whole.kl_nats, r.whole.count)),
        ("top-1", "share", True, lambda r: Score(r.whole.top1, r.whole.count)),
        ("stop-shift", "share", False, lambda r: Score(r.stop_shift, r.positions[0].count)),
    )
    found = []
    for name, unit, better, read in measures:
        own = _mean(_scores(replays, read))
        base, null = (
            other if isinstance(other, NotMeasured) else _mean(_scores(other, read))
            for other in (control, batched)
        )
        found.append(Finding(name, Layer.FORCED, unit, better, "quaver", base, own, APART, null))
    return found


def codec_findings(
    scores: Mapping[str, Sequence[tuple[str, Score | NotMeasured]]],
    metrics: Mapping[str, Metric],
) -> list[Finding]:
    """Of the same codes, decoded by both sides. `scores` by metric, with the text of each."""
    found = []
    for name, rows in scores.items():
        metric, own = metrics[name], _mean(_grouped(rows))
        found.append(
            Finding(
                name,
                Layer.CODEC,
                metric.unit,
                metric.higher_is_better,
                metric.version,
                SAME,
                own,
                SAME,
                NO_CHANCE,
            )
        )
    return found


def _cells(
    sides: Mapping[str, Scores | NotMeasured], level: Callable[[Scores | NotMeasured], Cell]
) -> tuple[Cell, Cell, Cell, Cell]:
    """Reference, candidate, change, null."""
    reference, candidate = sides[REFERENCE], sides[CANDIDATE]
    return (
        level(reference),
        level(candidate),
        _difference(reference, candidate),
        _difference(reference, sides[AGAIN]),
    )


def _by_text(name: str, rows: Iterable[tuple[Item, Heard]]) -> Scores | NotMeasured:
    return _grouped([(item.text, score(heard[name])) for item, heard in rows])


def _grouped(rows: Sequence[tuple[str, Score | NotMeasured]]) -> Scores | NotMeasured:
    missing = [one.reason for _, one in rows if isinstance(one, NotMeasured)]
    if not rows or len(missing) > MOST_MISSING * len(rows):
        first = missing[0] if missing else "there are no utterances"
        return NotMeasured(f"{len(missing)} of {len(rows)} could not be measured: {first}")
    found: dict[str, list[Score]] = {}
    for text, one in rows:
        if isinstance(one, Score):
            found.setdefault(text, []).append(one)
    return found


def _scores(replays: Sequence[Replay], read: Callable[[Replay], Score]) -> Scores:
    found: dict[str, list[Score]] = {}
    for replay in replays:
        found.setdefault(replay.text, []).append(read(replay))
    return found


def _mean(scores: Scores | NotMeasured) -> Cell:
    return scores if isinstance(scores, NotMeasured) else mean(scores)


def _share(scores: Scores | NotMeasured) -> Cell:
    """Of things that are so rare that a bootstrap of none would say never."""
    if isinstance(scores, NotMeasured):
        return scores
    flat = [one.value for rows in scores.values() for one in rows]
    return share(sum(value > 0 for value in flat), len(flat))


def _difference(reference: Scores | NotMeasured, candidate: Scores | NotMeasured) -> Cell:
    for side in (reference, candidate):
        if isinstance(side, NotMeasured):
            return side
    assert not isinstance(reference, NotMeasured) and not isinstance(candidate, NotMeasured)
    return difference(reference, candidate)


def _unmeasured(name: str, why: NotMeasured) -> Finding:
    return Finding(name, Layer.SPEECH, "", False, "none", why, why, why, why)
