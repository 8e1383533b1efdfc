"""Both sides speak the panel, and judges hear each utterance by itself.

The reference speaks twice, with other seeds: how much it differs from itself is what chance does.
Sides take turns text by text, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import math
import shutil
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quaver.audio.decode import read
from quaver.audio.encode import save
from quaver.comparing.ledger import Ledger
from quaver.comparing.panel import Item, Panel
from quaver.core.errors import InputError
from quaver.core.types import Audio
from quaver.loading import Loaded
from quaver.quality.metrics.metric import Kind, Metric, NotMeasured, Score, Speech
from quaver.quality.metrics.wer import Listener

REFERENCE, AGAIN, CANDIDATE = "reference", "again", "candidate"
SIDES = (REFERENCE, CANDIDATE, AGAIN)
SEEDS = {REFERENCE: 0, AGAIN: 100_000, CANDIDATE: 200_000}  # so that no two utterances share one
RTF = "rtf"
ELSEWHERE = NotMeasured(
    "the reference spoke in an earlier comparison, on a machine with other work"
)
NO_TWIN = NotMeasured("the reference made no sound to compare with")
Heard = dict[str, dict[str, Any]]  # by metric: value and weight, or a reason


def speak_panel(
    voices: Mapping[str, Loaded],
    panel: Panel,
    metrics: Mapping[str, Metric | NotMeasured],
    seed: int,
    ledger: Ledger,
    folder: Path,
    progress: Callable[[int], None],
) -> dict[str, list[tuple[Item, Heard]]]:
    """Every side's utterances with what was heard, in the panel's order. `voices` by side."""
    judges = {
        name: metric
        for name, metric in metrics.items()
        if isinstance(metric, NotMeasured) or metric.kind is not Kind.PAIRED
    }
    found: dict[str, list[tuple[Item, Heard]]] = {side: [] for side in SIDES}
    done = 0
    for item in panel:
        for side in SIDES:
            name = f"{side}/{item.key}"
            entry = ledger.get(name)
            if entry is None:
                own = seed + SEEDS[side] + item.number * 100 + item.run
                audio = voices[side].synthesizer.generate(item.text, voice=item.voice, seed=own)
                entry = _heard(audio, item, judges, _twin(folder, side, item))
                _keep(audio, folder, side, item)
                ledger.add(name, entry)
            found[side].append((item, entry["heard"]))
            done += 1
            progress(done)
    return found


def refuse_unlike(before: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """InputError unless two comparisons, by what they say of themselves, differ in their candidates
    alone."""
    if changed := sorted(key for key in now if _shared(then, key) != _shared(now, key)):
        raise InputError(
            f"{before} has another {', '.join(changed)}; --like takes a comparison that differs in "
            "its candidate alone"
        )


def take_over(before: Path, earlier: Ledger, folder: Path, ledger: Ledger) -> None:
    """Give `ledger` the reference's utterances of an earlier comparison, in the folder `before`."""
    for name, kept in earlier.entries():
        side, _, key = name.partition("/")
        if side == CANDIDATE or ledger.get(name) is not None:
            continue
        if (source := sound_path(before, side, key)).exists():
            place = sound_path(folder, side, key)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        ledger.add(name, {**kept, "heard": {**kept["heard"], RTF: entry(ELSEWHERE)}})


def _shared(setup: Mapping[str, Any], key: str) -> Any:
    """What a set-up says of `key`, candidate left out."""
    value = setup.get(key)
    if key == CANDIDATE:
        return None
    return value.get(REFERENCE) if key == "weights" and isinstance(value, Mapping) else value


def _heard(
    audio: Audio,
    item: Item,
    judges: Mapping[str, Metric | NotMeasured],
    twin: Speech | None,
) -> dict[str, Any]:
    """All that is to be known of an utterance. `twin` is the reference's, for those that compare
    with it; the reference has none."""
    reasons = tuple(str(reason) for reason in audio.stats.finish_reasons)
    speech = Speech(audio.samples, audio.sample_rate, item.text, item.voice, reasons)
    heard: Heard = {}
    transcript: str | None = None
    for name, judge in judges.items():
        if isinstance(judge, NotMeasured):
            score: Score | NotMeasured = judge
        elif isinstance(judge, Listener):  # the last, and so the strongest, tells what it heard
            score, words = judge.hear(speech)
            transcript = words if words is not None else transcript
        elif judge.kind is Kind.TWIN:
            score = NO_TWIN if twin is None else judge.measure(speech, twin)
        else:
            score = judge.measure(speech)
        heard[name] = entry(score)
    rtf = audio.stats.rtf
    heard[RTF] = entry(
        NotMeasured("there was no sound") if rtf is None else Score(rtf, audio.seconds)
    )
    return {
        "text": item.text,
        "voice": item.voice,
        "transcript": transcript,
        "seed": audio.stats.seed,
        "seconds": audio.seconds,
        "finish": list(reasons),
        "heard": heard,
    }


def _keep(audio: Audio, folder: Path, side: str, item: Item) -> None:
    if len(audio.samples):
        path = sound_path(folder, side, item.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, np.nan_to_num(audio.samples).clip(-1, 1), audio.sample_rate)


def _twin(folder: Path, side: str, item: Item) -> Speech | None:
    """What the reference made of the same text, for the other sides."""
    path = sound_path(folder, REFERENCE, item.key)
    if side == REFERENCE or not path.exists():
        return None
    with wave.open(str(path)) as opened:
        rate = opened.getframerate()
    return Speech(read(path, rate), rate, item.text, item.voice)


def sound_path(folder: Path, side: str, key: str) -> Path:
    """Where the utterance called `key` is kept."""
    return folder / "audio" / side / f"{key}.wav"


def entry(score: Score | NotMeasured) -> dict[str, Any]:
    """A score as JSON keeps it. A judge's NaN is no number."""
    if isinstance(score, NotMeasured):
        return {"reason": score.reason}
    if not (math.isfinite(score.value) and math.isfinite(score.weight)):
        return {"reason": f"the judge answered {score.value}"}
    return {"value": score.value, "weight": score.weight}


def score(kept: Mapping[str, Any]) -> Score | NotMeasured:
    """The inverse of `entry`."""
    if "reason" in kept:
        return NotMeasured(str(kept["reason"]))
    return Score(float(kept["value"]), float(kept["weight"]))
