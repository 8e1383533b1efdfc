"""The verdict, and a box for each requirement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from quaver.comparing import Comparison
from quaver.comparing.page_parts.charts import requirement_bar
from quaver.comparing.page_parts.markup import Html, el, estimate, in_unit, join, number, shown_unit
from quaver.quality.finding import Finding
from quaver.quality.gates import Measure, Outcome, overall
from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Verdict

# Small judges that run anywhere stand for listeners or for a strong model.
PROXIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "wer": ("pocketsphinx", "a small offline recogniser stands for a strong one"),
        "alignment": ("pocketsphinx", "a small offline recogniser stands for listeners"),
        "mos": ("distillmos", "a small network stands for listeners"),
        "speaker-similarity": ("resemblyzer", "a small network stands for listeners"),
        "utmos": ("utmos", "a network stands for listeners"),
    }
)
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "kl": "how far the candidate's probabilities are from the reference's",
        "top-1": "how often both hold the same code for the most probable",
        "stop-shift": "how much the probability to stop moves",
        "wer": "words that a recogniser hears wrong",
        "alignment": "how well the sound fits its text",
        "whisper-wer": "words that Whisper hears wrong",
        "mos": "predicted opinion of listeners",
        "utmos": "predicted opinion of listeners",
        "voice": "how far the timbre is from the reference's",
        "speaker-similarity": "how much it is the same voice",
        "wavlm-similarity": "how much it is the same voice",
        "pause-noise": "how far pauses are below speech",
        "duration": "how long the speech lasts",
        "failures": "utterances that are plainly broken",
        "rtf": "time of work for each second of sound",
        "spectral-correlation": "how alike the mel spectrograms are",
    }
)
MARKS = {Verdict.PASS: "\N{HEAVY CHECK MARK}", Verdict.FAIL: "\N{HEAVY MULTIPLICATION X}"}
WHAT = {Measure.CHANGE: "worse by ", Measure.SHIFT: "away by ", Measure.LEVEL: "level "}
CLASSES = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}


def verdict(found: Comparison) -> Html:
    """One word, and what it means."""
    decided = overall(found.outcomes)
    return el(
        "section",
        el("h2", "Verdict", class_="unseen", id="verdict-title"),
        el(
            "p",
            el("span", MARKS.get(decided, "?"), class_="mark", aria_hidden="true"),
            el("strong", decided.value.upper()),
            class_="word",
        ),
        el("p", meaning(decided, found.outcomes), class_="meaning"),
        id="verdict",
        class_=f"verdict {CLASSES.get(decided, 'open')}",
        aria_labelledby="verdict-title",
    )


def meaning(decided: Verdict, outcomes: Sequence[Outcome]) -> str:
    """The verdict in one sentence."""
    total = f"{len(outcomes)} requirement{'' if len(outcomes) == 1 else 's'}"
    if decided is Verdict.PASS:
        return f"All of {total} hold: even the worst that the measurements allow is within bounds."
    broken = _named(outcomes, Verdict.FAIL)
    if broken:
        return (
            f"Of {total}, {_count(broken, 'is', 'are')} not met: {', '.join(broken)}; even the "
            "best that the measurements allow is out of bounds."
        )
    parts = []
    if open_ := _named(outcomes, Verdict.NOT_RESOLVED):
        parts.append(f"the measurements do not decide on {', '.join(open_)}")
    if missing := _named(outcomes, Verdict.NOT_MEASURED):
        parts.append(f"there is no measurement of {', '.join(missing)}")
    return f"Nothing is shown to be broken, but of {total} not all are shown to hold: " + (
        ", and ".join(parts) + "."
    )


def _named(outcomes: Iterable[Outcome], verdict: Verdict) -> list[str]:
    return [each.name for each in outcomes if each.decision.verdict is verdict]


def _count(names: Sequence[str], one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many}"


def requirements(found: Comparison) -> Html:
    """A box each, in the order of the gates."""
    known = {finding.metric: finding for finding in found.findings}
    boxes = [_box(outcome, known.get(outcome.gate.metric)) for outcome in found.outcomes]
    return el(
        "section",
        el("h2", "Requirements", id="requirements-title"),
        el(
            "p",
            "Each interval holds the true value with 90 % confidence. A requirement passes when "
            "the whole interval is on the allowed side of the line.",
            class_="lead",
        ),
        el("div", boxes, class_="boxes"),
        id="requirements",
        aria_labelledby="requirements-title",
    )


def _box(outcome: Outcome, finding: Finding | None) -> Html:
    decided, metric = outcome.decision.verdict, outcome.gate.metric
    proxy = PROXIES.get(metric)
    badge = el("span", "proxy", class_="badge", title=proxy[1]) if proxy else None
    unit = finding.unit if finding else ""
    body: list[Html] = []
    if isinstance(outcome.harm, NotMeasured):
        body.append(el("p", outcome.harm.reason, class_="reason"))
    else:
        body.append(_measured(outcome, unit, finding is not None and finding.higher_is_better))
    return el(
        "article",
        el(
            "header",
            el("h3", outcome.name),
            badge,
            el("span", decided.value, class_=f"pill {CLASSES.get(decided, 'open')}"),
        ),
        el("p", _rule(outcome, finding), class_="rule"),
        *body,
        _facts(outcome, finding),
        class_=f"box {CLASSES.get(decided, 'open')}",
    )


def _rule(outcome: Outcome, finding: Finding | None) -> Html:
    metric = outcome.gate.metric
    better = finding is not None and finding.higher_is_better
    unit = finding.unit if finding else ""
    limit = f"{number(in_unit(abs(outcome.allowed), unit))} {_unit(outcome, unit)}".strip()
    text = {
        Measure.CHANGE: f": worse than the reference by at most {limit}",
        Measure.SHIFT: f": away from the reference by at most {limit}",
        Measure.LEVEL: f": {'at least' if better else 'at most'} {limit}",
    }[outcome.gate.measure]
    meant = f" ({MEANINGS[metric]})" if metric in MEANINGS else ""
    return join(el("b", metric), meant, text)


def _unit(outcome: Outcome, unit: str) -> str:
    points = unit == "share" and outcome.gate.measure is not Measure.LEVEL
    return "percentage points" if points else shown_unit(unit)


def _measured(outcome: Outcome, unit: str, higher_is_better: bool) -> Html:
    """Levels are shown as they are, changes as harm: more is worse."""
    assert not isinstance(outcome.harm, NotMeasured)
    harm, allowed = outcome.harm, outcome.allowed
    level = outcome.gate.measure is Measure.LEVEL
    least = level and higher_is_better
    if least:
        harm = replace(harm, value=-harm.value, low=-harm.high, high=-harm.low)
        allowed = -allowed
    what = WHAT[outcome.gate.measure]
    shown = estimate(harm, unit, signed=outcome.gate.measure is Measure.CHANGE)
    better = ", so better" if not level and harm.high < 0 else ""
    return join(
        requirement_bar(harm, allowed, unit, least=least),
        el("p", what, shown, " ", _unit(outcome, unit), better, class_="estimate"),
    )


def _facts(outcome: Outcome, finding: Finding | None) -> Html:
    rows: list[tuple[str, str]] = []
    if not isinstance(outcome.harm, NotMeasured):
        rows.append(("texts", str(outcome.harm.n)))
    if outcome.decision.verdict is Verdict.NOT_RESOLVED:
        needed = outcome.decision.needed
        found = f"about {needed:,} texts, if it stays so" if needed else "no number of texts would"
        rows.append(("to decide", found))
    if finding is not None:
        rows.append(("judge", judge_name(finding)))
    return el("dl", [join(el("dt", name), el("dd", value)) for name, value in rows])


def judge_name(finding: Finding) -> str:
    """Who measured, in which version."""
    package = PROXIES.get(finding.metric, ("", ""))[0]
    named = package.casefold() in finding.judge.casefold()
    if not package and finding.judge[:1].isdigit():
        return f"{finding.metric}, version {finding.judge}"
    return finding.judge if named else f"{package} {finding.judge}".strip()
