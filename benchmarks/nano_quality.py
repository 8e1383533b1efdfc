"""How well does a model say what its source synthesiser says?

Both read the same sentences, and one recogniser hears both, so that its own errors cancel in the
paired difference. Beside the words it counts failures (empty, runaway, truncated) and asks a
classifier trained on the source's voices, on other sentences, who is speaking.

    python benchmarks/nano_quality.py --model nano --voices slt,rms,awb --sentences 50 --seed 0 \
        --out benchmarks/results/nano_quality.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from quaver.bench.machine import write_result
from quaver.core.errors import InputError, QuaverError
from quaver.loading.parts import find_device, load_codec
from quaver.quality.metrics.speaker import SpeakerClassifier
from quaver.quality.metrics.wer import WordErrorRate
from quaver.quality.panel import PLAIN_SENTENCES
from quaver.train.config import DataConfig
from quaver.train.synthesis import prepare, speak
from quaver.train.texts import sentences as training_sentences

TRUNCATED = 0.6  # of the source's spoken duration
AUDIBLE = 1e-3  # of full scale; quieter than this throughout is an empty utterance
ENROLMENT_SENTENCES = 20
BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class Spoken:
    """One utterance: float32 samples [n] in -1..1, and why each of its segments ended."""

    samples: NDArray[np.float32]
    sample_rate: int
    finish_reasons: tuple[str, ...] = ("stop",)


Synthesizer = Callable[[str, str, int], Spoken]  # text, voice, seed
Hearing = tuple[int, int]  # errors, words
Heard = tuple[str, Spoken]  # reference text, speech


@dataclass(frozen=True)
class VoiceReport:
    """What was measured for one voice. Rates and accuracies are shares, 0 to 1."""

    voice: str
    n: int
    wer_source: float
    wer_model: float
    wer_difference: float
    interval: tuple[float, float]  # 95 %, of the difference
    empty: int
    runaway: int
    truncated: int
    duration_ratio: float | None  # mean, model over source; None if all are empty
    speaker_accuracy: float


def flite(text: str, voice: str, seed: int) -> Spoken:
    """The source synthesiser; it has no randomness, so `seed` changes nothing.

    Raises UnsupportedError if it is missing or fails.
    """
    with TemporaryDirectory() as scratch:
        samples, rate = speak(text, voice, Path(scratch) / "speech.wav")
        return Spoken(samples.astype(np.float32) / 32768.0, rate)


def quaver_synthesizer(model: str, recipe: str | None = None) -> Synthesizer:
    """The model under test, as `quaver.load` finds it."""
    import quaver

    synthesizer = quaver.load(model, recipe)

    def speak(text: str, voice: str, seed: int) -> Spoken:
        audio = synthesizer.generate(text, voice=voice, seed=seed)
        reasons = tuple(str(reason) for reason in audio.stats.finish_reasons)
        return Spoken(audio.samples, audio.sample_rate, reasons)

    return speak


def copying_synthesizer(codec: Path) -> Synthesizer:
    """The source's speech, coded and decoded: no model with this codec can do better."""
    snac = load_codec(codec, find_device("cpu"))
    trim = DataConfig(folder="", voices=(), hours=0.0, sample_rate=snac.sample_rate)

    def speak_and_copy(text: str, voice: str, seed: int) -> Spoken:
        with TemporaryDirectory() as scratch:
            samples, rate = speak(text, voice, Path(scratch) / "speech.wav")
        sound = prepare(samples, rate, trim).astype(np.float32) / 32768.0
        stream = snac.stream(seed)
        copied = np.concatenate((stream.push(snac.encode(sound)), stream.finish()))
        return Spoken(copied[: len(sound)], snac.sample_rate)

    return speak_and_copy


def spoken_seconds(speech: Spoken) -> float:
    """Seconds from the first audible sample to the last; 0 if there is none."""
    audible = np.flatnonzero(np.abs(speech.samples) > AUDIBLE)
    return float(audible[-1] - audible[0] + 1) / speech.sample_rate if len(audible) else 0.0


def enrol(voices: Sequence[str], source: Synthesizer, seed: int) -> SpeakerClassifier:
    """A classifier of the source's voices, trained on sentences that are not of the panel."""
    pool = [text for text in training_sentences() if 40 <= len(text) <= 100]
    chosen = random.Random(seed).sample(pool, ENROLMENT_SENTENCES)
    speech = [(source(text, voice, seed), voice) for voice in voices for text in chosen]
    return SpeakerClassifier.fit([(s.samples, s.sample_rate, voice) for s, voice in speech])


@cache
def _judge() -> WordErrorRate:
    return WordErrorRate()


def _hear(pair: Heard) -> Hearing:
    text, speech = pair
    return _judge().errors(text, speech.samples, speech.sample_rate)


def hear_all(pairs: Sequence[Heard], jobs: int) -> list[Hearing]:
    """Word errors of each utterance, in order, in `jobs` processes."""
    if jobs == 1:
        return [_hear(pair) for pair in pairs]
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        return list(pool.map(_hear, pairs, chunksize=4))


def paired_interval(
    source: Sequence[Hearing], model: Sequence[Hearing], seed: int
) -> tuple[float, float]:
    """95 % interval of the difference of two corpus rates, by resampling sentences in pairs."""
    words = np.array([count for _, count in source], dtype=np.float64)
    gaps = np.array([m[0] - s[0] for s, m in zip(source, model, strict=True)], dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(words), size=(BOOTSTRAP_DRAWS, len(words)))
    low, high = np.percentile(gaps[draws].sum(1) / words[draws].sum(1), [2.5, 97.5])
    return float(low), float(high)


def report_voice(
    voice: str,
    speech: Sequence[tuple[Spoken, Spoken]],
    heard: Sequence[tuple[Hearing, Hearing]],
    classifier: SpeakerClassifier,
    seed: int,
) -> VoiceReport:
    """Sum up (source, model) pairs of speech and of word errors, one pair a sentence."""
    ratios = [spoken_seconds(model) / spoken_seconds(source) for source, model in speech]
    by_source, by_model = [pair[0] for pair in heard], [pair[1] for pair in heard]
    words = sum(count for _, count in by_source)
    wer = [sum(errors for errors, _ in side) / words for side in (by_source, by_model)]
    present = [ratio for ratio in ratios if ratio > 0]
    return VoiceReport(
        voice=voice,
        n=len(speech),
        wer_source=wer[0],
        wer_model=wer[1],
        wer_difference=wer[1] - wer[0],
        interval=paired_interval(by_source, by_model, seed),
        empty=sum(ratio == 0 for ratio in ratios),
        runaway=sum(set(model.finish_reasons) != {"stop"} for _, model in speech),
        truncated=sum(0 < ratio < TRUNCATED for ratio in ratios),
        duration_ratio=float(np.mean(present)) if present else None,
        speaker_accuracy=float(np.mean([_is(voice, model, classifier) for _, model in speech])),
    )


def _is(voice: str, speech: Spoken, classifier: SpeakerClassifier) -> bool:
    try:
        return classifier.predict(speech.samples, speech.sample_rate) == voice
    except InputError:  # too short or silent to be anyone
        return False


def measure(
    voices: Sequence[str],
    sentences: Sequence[str],
    source: Synthesizer,
    model: Synthesizer,
    seed: int,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> list[VoiceReport]:
    """Compare two synthesisers on the same sentences and voices, a report for each voice."""
    classifier = enrol(voices, source, seed)
    reports = []
    for voice in voices:
        progress(f"{voice}: speaking {len(sentences)} sentences twice")
        speech = [
            (source(text, voice, seed + i), model(text, voice, seed + i))
            for i, text in enumerate(sentences)
        ]
        progress(f"{voice}: listening")
        pairs = [(t, s) for t, both in zip(sentences, speech, strict=True) for s in both]
        flat = hear_all(pairs, jobs)
        heard = list(zip(flat[::2], flat[1::2], strict=True))
        reports.append(report_voice(voice, speech, heard, classifier, seed))
    return reports


def table(reports: Sequence[VoiceReport]) -> str:
    """The reports as aligned text; word error rates in percent, differences in points."""
    rows = [
        "voice    n  WER source  WER model  difference [95 % interval]  empty runaway truncated"
        "  duration  speaker"
    ]
    for r in reports:
        low, high = (100 * bound for bound in r.interval)
        ratio = "-" if r.duration_ratio is None else f"{r.duration_ratio:.3f}"
        gap = f"{100 * r.wer_difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append(
            f"{r.voice:5s} {r.n:4d} {100 * r.wer_source:10.2f}% {100 * r.wer_model:9.2f}%  "
            f"{gap:>26s}  {r.empty:5d} {r.runaway:7d} {r.truncated:9d}  {ratio:>8s} "
            f"{100 * r.speaker_accuracy:7.1f}%"
        )
    return "\n".join(rows)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="nano", help="nano, a folder or a hub id")
    parser.add_argument("--recipe", help="precision; default: the model's on this machine")
    parser.add_argument(
        "--codec",
        type=Path,
        help="judge this codec instead: the source's speech, coded and decoded",
    )
    parser.add_argument("--voices", default="slt,rms,awb", help="flite voices, comma separated")
    parser.add_argument("--sentences", type=int, default=50, help=f"2 to {len(PLAIN_SENTENCES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="listening processes")
    parser.add_argument("--out", type=Path, help="where to write the JSON report")
    arguments = parser.parse_args(argv)
    if not 2 <= arguments.sentences <= len(PLAIN_SENTENCES):
        parser.error(f"--sentences is {arguments.sentences}; give 2 to {len(PLAIN_SENTENCES)}")
    if len(set(arguments.voices.split(","))) < 2:
        parser.error("--voices names one voice; telling speakers apart needs two or more")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        model = (
            copying_synthesizer(arguments.codec)
            if arguments.codec
            else quaver_synthesizer(arguments.model, arguments.recipe)
        )
        reports = measure(
            arguments.voices.split(","),
            PLAIN_SENTENCES[: arguments.sentences],
            flite,
            model,
            arguments.seed,
            arguments.jobs,
            lambda line: print(line, file=sys.stderr),
        )
    except QuaverError as error:
        print(f"nano_quality: {error}", file=sys.stderr)
        return 2
    print(table(reports))
    if arguments.out:
        shown = {k: str(v) for k, v in vars(arguments).items()}
        voices = [asdict(report) for report in reports]
        write_result(arguments.out, {"arguments": shown, "voices": voices})
    return 0


if __name__ == "__main__":
    sys.exit(main())
