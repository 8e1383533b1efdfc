"""Is the judge to be believed? How often does a comparison fail what is whole, or miss damage?

A pool of utterances is made once: every text by every voice under several seeds, by the whole
model and by each broken one, each heard by the judges of `quaver compare`. A trial then draws texts
with replacement, a voice and different seeds for each side, and goes the way of any comparison from
there: findings, gates, verdict, and the part that is blamed. Trials share the pool, so that they
resemble each other more than fresh ones would.

    python benchmarks/judge.py --work /tmp/judge --out benchmarks/results/judge.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import DAMAGES, Damage
from numpy.typing import NDArray
from torch import Tensor

from quaver.bench.machine import write_result
from quaver.checkpoints.atomic import new_file
from quaver.comparing import decode_both
from quaver.comparing.blame import culprits
from quaver.comparing.findings import codec_findings, forced_findings, speech_findings
from quaver.comparing.forced import replay
from quaver.comparing.ledger import Ledger
from quaver.comparing.panel import Item
from quaver.comparing.speaking import AGAIN, CANDIDATE, REFERENCE, RTF, entry
from quaver.comparing.swaps import swap
from quaver.loading import Loaded, open_model
from quaver.quality.finding import Finding
from quaver.quality.gates import DEFAULTS, judge, overall
from quaver.quality.metrics import find_metrics
from quaver.quality.metrics.metric import Kind, Metric, NotMeasured, Speech
from quaver.quality.panel import PLAIN_SENTENCES
from quaver.quality.stats import Verdict
from quaver.quantizing.speech import speak as say_codes

MODEL, RECIPE = "nano", "fp32"
# What costs more time than the rest together, and what a shared machine tells nothing about.
LEFT_OUT = {"mos", "estoi", "pesq", "speaker-similarity", "pitch", "pitch-voicing", "mr-stft"}
GATES = {name: gate for name, gate in DEFAULTS.items() if name not in ("opinion", "speed")}
CLEAN = DAMAGES[0]
TEXTS = PLAIN_SENTENCES[:24]
FRAMES = "frames"  # what the whole model said, in the pool's folder
DRAWN = 60  # texts of a trial: those of a default comparison
SEEDS = 3  # of the whole model, and of what is as good; of broken ones the first alone is heard
FORCED_TEXTS = 8
Samples = NDArray[np.float32]


class Recorder:
    """A codec that keeps the frames it was given."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self.frames: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def stream(self, seed: int | None) -> Any:
        stream = self._codec.stream(seed)
        push = stream.push

        def kept(frames: Tensor) -> Samples:
            self.frames.append(frames)
            return push(frames)  # type: ignore[no-any-return]

        stream.push = kept
        return stream


def judges() -> dict[str, Metric]:
    return {
        name: metric
        for name, metric in find_metrics().items()
        if not isinstance(metric, NotMeasured) and name not in LEFT_OUT
    }


def utterances(voices: Sequence[str], seeds: int) -> Iterator[tuple[str, Item]]:
    """Every text by every voice, `seeds` times; the name that the pool knows it by."""
    for number, text in enumerate(TEXTS):
        for voice in voices:
            for run in range(seeds):
                yield f"{number:02d}-{voice}-{run}", Item(number, text, voice, run)


def make_frames(work: Path, share: int, shares: int) -> None:
    """What the whole model says, as frames; one process's share of the texts."""
    torch.set_num_threads(1)
    whole = open_model(MODEL, RECIPE, "cpu", slots=1)
    (work / FRAMES).mkdir(parents=True, exist_ok=True)
    for name, item in utterances(whole.prompts.voices, SEEDS):
        path = work / FRAMES / f"{name}.npz"
        if item.number % shares == share and not path.exists():
            _, reasons, frames = speak(whole, CLEAN, item, seed_of(whole, item))
            with new_file(path) as part, part.open("wb") as opened:
                np.savez(opened, frames=frames.numpy().astype(np.int16), reasons=list(reasons))


def make_pool(work: Path, damage: Damage) -> None:
    """All utterances of one kind, heard; goes on where it was stopped."""
    torch.set_num_threads(1)
    whole = open_model(MODEL, RECIPE, "cpu", slots=1)
    side = broken(whole, damage)
    metrics = {name: each for name, each in judges().items() if each.kind is not Kind.PAIRED}
    ledger = open_pool(work, damage, metrics)
    anew = side.model is not whole.model or side.keeping is not whole.keeping
    for name, item in utterances(whole.prompts.voices, SEEDS if damage.mild else 1):
        if ledger.get(name) is not None:
            continue
        if anew or (damage.voice is not None and damage.voice[0] == item.voice):
            samples, reasons, _ = speak(side, damage, item, seed_of(whole, item))
        else:
            frames, reasons = saved(work, item, item.run)
            samples = listen_to(side, damage, frames, seed_of(whole, item))
        speech = Speech(samples, side.codec.sample_rate, item.text, item.voice, reasons)
        other, _ = saved(work, item, (item.run + 1) % SEEDS)
        twin = replace(speech, samples=listen_to(whole, CLEAN, other, item.number))
        ledger.add(name, {"heard": hear(speech, twin, metrics)})
    print(f"{damage.name}: heard", flush=True)


def seed_of(whole: Loaded, item: Item) -> int:
    return 1000 * item.number + 10 * whole.prompts.voices.index(item.voice or "") + item.run


def saved(work: Path, item: Item, run: int) -> tuple[Tensor, tuple[str, ...]]:
    """Frames [n, 7] of the whole model's utterance, and why it ended."""
    found = np.load(work / FRAMES / f"{item.number:02d}-{item.voice}-{run}.npz")
    return torch.from_numpy(found["frames"]).long(), tuple(map(str, found["reasons"]))


def broken(whole: Loaded, damage: Damage) -> Loaded:
    if damage.name == "bf16":
        return open_model(MODEL, "bf16", "cpu", slots=1)
    return whole if damage.model is None else damage.model(whole)


def speak(
    side: Loaded, damage: Damage, item: Item, seed: int
) -> tuple[Samples, tuple[str, ...], Tensor]:
    """What the model says: samples, why it ended, and the frames [n, codes]."""
    voice = item.voice
    if damage.voice is not None and voice == damage.voice[0]:
        voice = damage.voice[1]
    recorder = Recorder(side.codec)
    speaking = replace(side, codec=recorder)  # type: ignore[arg-type]
    audio = speaking.synthesizer.generate(item.text, voice=voice, seed=seed)
    reasons = tuple(str(reason) for reason in audio.stats.finish_reasons)
    return audio.samples, reasons, torch.cat(recorder.frames).cpu()


def listen_to(side: Loaded, damage: Damage, frames: Tensor, seed: int) -> Samples:
    """The sound of frames, by this side's codec, with what is wrong around it."""
    random = np.random.default_rng((seed, 7))
    if damage.frames is not None:
        frames = damage.frames(frames, random)
    stream = side.codec.stream(seed)
    samples = np.concatenate([stream.push(frames), stream.finish()])
    return samples if damage.samples is None else damage.samples(samples, random)


def hear(speech: Speech, twin: Speech, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    heard = {RTF: entry(NotMeasured("not timed here"))}
    return heard | {name: entry(each.measure(speech, twin)) for name, each in metrics.items()}


def open_pool(work: Path, damage: Damage, metrics: Mapping[str, Metric]) -> Ledger:
    """One kind's utterances. InputError where others' ears, or older ones, have heard them."""
    versions = {n: each.version for n, each in metrics.items() if each.kind is not Kind.PAIRED}
    return Ledger(work / slug(damage), {"damage": damage.name, "metrics": versions})


def slug(damage: Damage) -> str:
    return "".join(c if c.isalnum() else "-" for c in damage.name)


def trial(
    pools: Mapping[str, Ledger],
    damage: Damage,
    metrics: Mapping[str, Metric],
    voices: Sequence[str],
    runs: int,
    random: np.random.Generator,
) -> list[Finding]:
    """What one comparison of `runs` seeds a text would find in free speech."""
    heard: dict[str, list[tuple[Item, Any]]] = {REFERENCE: [], CANDIDATE: [], AGAIN: []}
    start = int(random.integers(len(voices)))
    for place, number in enumerate(random.integers(len(TEXTS), size=DRAWN)):
        text = f"{TEXTS[number]} ({place})"
        for run in range(runs):
            voice = voices[(start + place + run) % len(voices)]
            seeds = random.permutation(SEEDS)
            for side, seed in zip(heard, seeds, strict=True):
                pool = pools[(damage if side == CANDIDATE else CLEAN).name]
                own = int(seed) if side != CANDIDATE or damage.mild else 0
                found = pool.get(f"{number:02d}-{voice}-{own}")
                assert found is not None, "the pool is whole"
                heard[side].append((Item(place, text, voice, run), found["heard"]))
    return speech_findings(heard, metrics)


def fixed(damage: Damage) -> tuple[list[Finding], list[Any]]:
    """The layers without chance, and what each part does by itself."""
    torch.set_num_threads(1)
    whole = open_model(MODEL, RECIPE, "cpu", slots=1)
    side = broken(whole, damage)
    texts = TEXTS[:FORCED_TEXTS]
    spoken = say_codes(whole.model, whole.folder, texts, 0, whole.device)
    said = [(text, each) for text, each in zip(texts, spoken, strict=True) if each.codes]
    metrics = {name: each for name, each in judges().items() if each.kind is Kind.PAIRED}
    sides = {REFERENCE: whole, CANDIDATE: side}
    decoded = decode_both(sides, said, metrics, 0, lambda done: None)
    same = side.model is whole.model and side.keeping is whole.keeping
    none = NotMeasured("not asked here")
    replays = replay(whole, side, said, lambda done: None)
    swaps = [] if same else swap(whole, side, said[:4], lambda done: None)
    return [*forced_findings(replays, none, none), *codec_findings(decoded, metrics)], swaps


def study(work: Path, damage: Damage, trials: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Many trials of one kind of damage, for each number of seeds a text."""
    torch.set_num_threads(1)
    metrics = judges()
    pools = {each.name: open_pool(work, each, metrics) for each in (CLEAN, damage)}
    without_chance, swaps = fixed(damage)
    voices = open_model(MODEL, RECIPE, "cpu", slots=1).prompts.voices
    kl = next(each.candidate for each in without_chance if each.metric == "kl")
    rows = []
    for runs in sizes:
        counts = {name: Counter[str]() for name in ("verdicts", "failed", "passed", "blamed")}
        for number in range(trials):
            random = np.random.default_rng((number, runs))
            free = trial(pools, damage, metrics, voices, runs, random)
            findings = [*without_chance, *free]
            outcomes = judge(GATES, findings)
            counts["verdicts"].update([overall(outcomes).value])
            for outcome in outcomes:
                kind = {Verdict.FAIL: "failed", Verdict.PASS: "passed"}.get(
                    outcome.decision.verdict
                )
                if kind is not None:
                    counts[kind].update([outcome.name])
            counts["blamed"].update(culprits(outcomes, findings, swaps))
        row = {
            "damage": damage.name,
            "mild": damage.mild,
            "utterances": DRAWN * runs,
            "trials": trials,
            **{name: dict(found) for name, found in counts.items()},
            "may_be_blamed": list(damage.culprits),
            "kl": getattr(kl, "value", None),
            "kl_by_part": {each.part.name: each.kl.value for each in swaps},
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder for the pool; goes on")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 5], help="seeds a text")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="kinds of damage whose names hold these words")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    kinds = [
        damage
        for damage in DAMAGES
        if not wanted.only or any(word in damage.name for word in wanted.only)
    ]
    with ProcessPoolExecutor(wanted.jobs) as workers:
        for share in [
            workers.submit(make_frames, wanted.work, k, wanted.jobs) for k in range(wanted.jobs)
        ]:
            share.result()
        needed = [CLEAN, *(each for each in kinds if each != CLEAN)]
        for pool in [workers.submit(make_pool, wanted.work, each) for each in needed]:
            pool.result()
        studies = [
            workers.submit(study, wanted.work, damage, wanted.trials, wanted.runs)
            for damage in kinds
        ]
        rows = [row for each in studies for row in each.result()]
    if wanted.out:
        pool = {"texts": len(TEXTS), "voices": 3, "seeds": SEEDS, "recipe": RECIPE}
        write_result(wanted.out, {"model": MODEL, "pool": pool, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
