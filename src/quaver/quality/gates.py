"""Requirements, and whether what was found meets them.

A gate names a metric, what of it counts, and how much harm is allowed. The defaults stand here; a
file changes them by name and adds others:

    [gates.words]
    relative = 0.10

    [gates.pitch]
    metric = "pitch"
    measure = "level"
    margin = 40.0
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from quaver.core.errors import ConfigError
from quaver.quality.finding import Finding
from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Decision, Estimate, Verdict, decide


class Measure(StrEnum):
    """What of a metric a gate looks at."""

    CHANGE = "change"  # how much worse the candidate is than the reference
    SHIFT = "shift"  # how far it is from the reference, either way
    LEVEL = "level"  # the candidate's own number


@dataclass(frozen=True, slots=True)
class Gate:
    """At most `margin` of harm; of what is beside the reference, or `relative` of the reference's
    number if that is more."""

    metric: str
    measure: Measure
    margin: float
    relative: float = 0.0
    enabled: bool = True


DEFAULTS: Mapping[str, Gate] = MappingProxyType(
    {
        # a rise of under 5 %; at low error rates no panel could show that, so half a point will do
        "words": Gate("wer", Measure.CHANGE, 0.005, relative=0.05),
        # what words need thousands of, this tells in dozens; wrong words score 4 less
        "fit": Gate("alignment", Measure.CHANGE, 0.1),  # nats a frame
        # a resampler's error; frames that are said twice or left out change more
        "pace": Gate("duration", Measure.SHIFT, 0.0, relative=0.02),
        # the bundled voices are 4 to 7 dB from each other, and 0.5 from themselves
        "voice": Gate("voice", Measure.CHANGE, 0.5),  # dB
        "noise": Gate("pause-noise", Measure.CHANGE, 3.0),  # dB
        "opinion": Gate("mos", Measure.CHANGE, 0.2),  # points
        # four bits are below on the bundled voice, and damage above; see docs/quality.md
        "choices": Gate("kl", Measure.LEVEL, 0.05),  # nats a code
        "spectrum": Gate("spectral-correlation", Measure.LEVEL, 0.95),
        "failures": Gate("failures", Measure.LEVEL, 0.01),
        "speed": Gate("rtf", Measure.CHANGE, 0.0, relative=0.10),
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A gate's decision. `harm` and `allowed` are in the metric's unit, more harm is worse."""

    name: str
    gate: Gate
    decision: Decision
    harm: Estimate | NotMeasured
    allowed: float


def judge(gates: Mapping[str, Gate], findings: Iterable[Finding]) -> list[Outcome]:
    """What each enabled gate says of the findings. A gate without its metric does not pass."""
    known = {finding.metric: finding for finding in findings}
    return [
        _outcome(name, gate, known.get(gate.metric)) for name, gate in gates.items() if gate.enabled
    ]


def overall(outcomes: Iterable[Outcome]) -> Verdict:
    """FAIL if any gate fails; NOT_RESOLVED if any is open or was not measured; else PASS."""
    verdicts = {outcome.decision.verdict for outcome in outcomes}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts <= {Verdict.PASS} else Verdict.NOT_RESOLVED


def read_gates(path: Path) -> dict[str, Gate]:
    """The defaults as a TOML file changes them. ConfigError for what it cannot mean."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no gates at {path}") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    if unknown := sorted(set(values) - {"gates"}):
        raise ConfigError(f"{path}: unknown keys {unknown}; allowed is gates")
    found = dict(DEFAULTS)
    sections = values.get("gates", {})
    if not isinstance(sections, dict):
        raise ConfigError(f"{path}: gates must be a table of gates, such as [gates.words]")
    for name, section in sections.items():
        found[name] = _gate(section, found.get(name), f"{path.name}, gates.{name}")
    return found


def _gate(values: Any, before: Gate | None, where: str) -> Gate:
    known = {field.name: field for field in fields(Gate)}
    if not isinstance(values, dict) or (unknown := sorted(set(values) - set(known))):
        given = values if not isinstance(values, dict) else unknown
        raise ConfigError(f"{where}: unknown keys {given}; allowed are {sorted(known)}")
    needed = {"metric", "measure", "margin"} - set(values)
    if before is None and needed:
        raise ConfigError(f"{where} is new and lacks {sorted(needed)}")
    checked = {key: _value(key, value, where) for key, value in values.items()}
    return Gate(**checked) if before is None else replace(before, **checked)


def _value(key: str, value: Any, where: str) -> Any:
    if key == "measure":
        if value not in set(Measure):
            raise ConfigError(f"{where}: measure is {value!r}; allowed are {', '.join(Measure)}")
        return Measure(value)
    wanted = {"metric": str, "enabled": bool}.get(key)
    if wanted is not None:
        if isinstance(value, wanted):
            return value
        raise ConfigError(f"{where}: {key} is {value!r}; a {wanted.__name__} is needed")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or math.isnan(value) or (key == "relative" and value < 0):
        raise ConfigError(f"{where}: {key} is {value!r}; a number is needed, relative not below 0")
    return float(value)


def _outcome(name: str, gate: Gate, finding: Finding | None) -> Outcome:
    if finding is None:
        missing = NotMeasured(f"no metric called {gate.metric} was measured")
        return Outcome(name, gate, Decision(Verdict.NOT_MEASURED), missing, gate.margin)
    cell = finding.candidate if gate.measure is Measure.LEVEL else finding.change
    allowed = gate.margin
    if gate.measure is not Measure.LEVEL and isinstance(finding.reference, Estimate):
        allowed = max(allowed, gate.relative * abs(finding.reference.value))
    if isinstance(cell, NotMeasured):
        return Outcome(name, gate, Decision(Verdict.NOT_MEASURED), cell, allowed)
    harm = cell
    if gate.measure is Measure.SHIFT:
        harm = cell.distance
    elif finding.higher_is_better:
        harm = Estimate(-cell.value, -cell.high, -cell.low, cell.n)
        allowed = -allowed if gate.measure is Measure.LEVEL else allowed
    return Outcome(name, gate, decide(harm, allowed), harm, allowed)
