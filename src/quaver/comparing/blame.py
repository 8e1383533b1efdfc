"""From what failed and what each part does by itself to the part that did it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from quaver.comparing.speaking import RTF
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
SPEED = "speed"  # time depends on the machine too, and no part of speech is at fault
SAME = "reading the same tokens and decoding the same codes, both sides agree"

# Where to look, by the metric of a requirement that fails, when no part of the model is at fault.
PLACES: Mapping[str, str] = MappingProxyType(
    {
        "wer": "prompts, the tokenizer and sampling",
        "whisper-wer": "prompts, the tokenizer and sampling",
        "alignment": "prompts, the tokenizer and sampling",
        "duration": "sample rates and frames that are repeated or left out",
        "voice": "voices and prompts",
        "speaker-similarity": "voices and prompts",
        "wavlm-similarity": "voices and prompts",
        "pitch": "voices and sample rates",
        "pitch-voicing": "voices and sample rates",
        "pause-noise": "the codec's noise and what is done to samples",
        "mos": "sampling and what is done to samples",
        "utmos": "sampling and what is done to samples",
        "failures": "sampling, the end of speech and what is done to samples",
    }
)
ANYWHERE = "prompts, voices, sampling and what is done to the sound"


def culprits(
    outcomes: Iterable[Outcome], findings: Sequence[Finding], swaps: Sequence[Swap]
) -> list[str]:
    """Names of the parts that made requirements fail: roles, `layer 3`, AROUND, and SPEED last;
    none if no requirement fails."""
    layers = {each.metric: each.layer for each in findings}
    failed = _failed(outcomes)
    slow = [metric for metric in failed if layers.get(metric) is Layer.SPEED]
    speech = set(failed) - set(slow)
    return [
        *(_parts(speech, layers, findings, swaps) if speech else []),
        *([SPEED] if slow else []),
    ]


def sentence(parts: Sequence[str], swaps: Sequence[Swap], outcomes: Iterable[Outcome]) -> str:
    """What `culprits` found, for people."""
    if not parts:
        return "No requirement fails, so no part is to blame."
    failed = _failed(outcomes)
    told = []
    if AROUND in parts:
        names = dict.fromkeys(PLACES.get(metric, "") for metric in failed if metric != RTF)
        places = "; ".join(filter(None, names)) or ANYWHERE
        told.append(f"It is around the models: {SAME}, so look at {places}.")
    known = {each.part.name: each.kl.value for each in swaps}
    named = [f"{part} ({_why(part, known)})" for part in parts if part not in (AROUND, SPEED)]
    if named:
        told.append(f"It is the {' and the '.join(named)}.")
    if SPEED in parts:
        told.append(_slow(failed, alone=len(parts) == 1))
    return " ".join(told)


def _failed(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Requirements that fail, by metric."""
    return {each.gate.metric: each for each in outcomes if each.decision.verdict is Verdict.FAIL}


def _slow(failed: Mapping[str, Outcome], alone: bool) -> str:
    outcome = failed[RTF]
    assert isinstance(outcome.harm, Estimate), "it was decided on"
    start = "It is the speed alone" if alone else "It is also the speed"
    return (
        f"{start}: a harm of {outcome.harm.value:.3g} s of work a second of sound, and "
        f"{outcome.allowed:.3g} is allowed. Other processes slow one side down too, so compare on "
        "a quiet machine; `quaver bench` says what each recipe can do there."
    )


def _parts(
    failed: set[str],
    layers: Mapping[str, Layer],
    findings: Sequence[Finding],
    swaps: Sequence[Swap],
) -> list[str]:
    """The parts of the model that requirements on speech fail by, or AROUND."""
    found = [Role.CODEC.value] if any(_broken(each, failed) for each in findings) else []
    roles = [each for each in swaps if each.part.layer is None]
    loud = [_named(each, swaps) for each in roles if _loud(each)]
    if not loud and roles and any(layers.get(metric) is Layer.FORCED for metric in failed):
        # what is said next has changed, so some part did it, if only together with others
        loud = [_named(max(roles, key=lambda each: each.kl.value), swaps)]
    return [*found, *loud] or [AROUND]


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
