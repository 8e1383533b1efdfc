"""From what failed and what each part does by itself to the part that did it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quaver.comparing.swaps import Swap
from quaver.precision import Role
from quaver.quality.finding import Finding, Layer
from quaver.quality.gates import Outcome
from quaver.quality.stats import Estimate, Verdict

# Nats a code. Recipes that sound right stay below a third of it on the bundled voice, and planted
# damage that is heard begins at twice as much: docs/quality.md has the table.
LOUD = 0.05
AUDIBLE = 35.0  # dB: a difference of codecs on the same codes that may be heard in pauses
MOST = 2.0  # times all other layers together: a layer that is named alone
AROUND = "around the models"  # prompt, sampling, frames, samples: what no recipe keeps in bits


def culprits(
    outcomes: Iterable[Outcome], findings: Iterable[Finding], swaps: Sequence[Swap]
) -> list[str]:
    """Names of the parts that did it: roles, `layer 3`, or AROUND; none if no requirement fails."""
    failed = {each.gate.metric for each in outcomes if each.decision.verdict is Verdict.FAIL}
    if not failed:
        return []
    found = [Role.CODEC.value] if any(_broken(each, failed) for each in findings) else []
    found += [_named(each, swaps) for each in swaps if each.part.layer is None and _loud(each)]
    return found or [AROUND]


def sentence(parts: Sequence[str], swaps: Sequence[Swap]) -> str:
    """What `culprits` found, for people."""
    if not parts:
        return "No requirement fails, so no part is to blame."
    if parts == [AROUND]:
        return (
            "It is around the models: reading the same tokens and decoding the same codes, both "
            "sides agree, so look at prompts, voices, sampling and what is done to the sound."
        )
    known = {each.part.name: each.kl.value for each in swaps}
    told = [f"{part} ({_why(part, known)})" for part in parts]
    return f"It is the {' and the '.join(told)}."


def _broken(finding: Finding, failed: set[str]) -> bool:
    """Whether a finding on the same codes shows the codec to be at fault: by a requirement of its
    own, or by being loud enough to fail others."""
    if finding.layer is not Layer.CODEC:
        return False
    level = finding.candidate
    loud = finding.metric == "snr" and isinstance(level, Estimate) and level.high < AUDIBLE
    return loud or finding.metric in failed


def _why(part: str, known: dict[str, float]) -> str:
    if part in known:
        return f"alone it changes what is said next by {known[part]:.2g} nats a code"
    return "the same codes sound different"


def _loud(swap: Swap) -> bool:
    return swap.kl.low > LOUD


def _named(role: Swap, swaps: Sequence[Swap]) -> str:
    """The role, or its one layer that does most of it."""
    layers = [each for each in swaps if each.part.layer is not None]
    if role.part.role is not Role.BACKBONE or not layers:
        return role.part.name
    worst = max(layers, key=lambda each: each.kl.value)
    rest = sum(each.kl.value for each in layers) - worst.kl.value
    return worst.part.name if worst.kl.value > MOST * rest else role.part.name
