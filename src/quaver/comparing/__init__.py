"""`quaver compare`: two models, or one under two recipes, beside each other.

A composition root like `loading`. Three layers, from the surest to the nearest to ears: both read
the same tokens (`forced`), both decode the same codes, both speak (`speaking`). `findings` turns
utterances into estimates, `quality.gates` decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from quaver import __version__
from quaver.checkpoints.source import resolve
from quaver.comparing.blame import culprits, sentence
from quaver.comparing.findings import codec_findings, forced_findings, speech_findings
from quaver.comparing.forced import Replay, in_batch, replay
from quaver.comparing.ledger import Ledger
from quaver.comparing.panel import Panel, make_panel
from quaver.comparing.speaking import (
    AGAIN,
    CANDIDATE,
    REFERENCE,
    SIDES,
    refuse_unlike,
    speak_panel,
    take_over,
)
from quaver.comparing.swaps import Swap, parts_of, swap
from quaver.core.errors import InputError
from quaver.engine.threads import cpu_threads
from quaver.loading import Loaded, open_model
from quaver.loading.orpheus import stored_recipe
from quaver.loading.parts import find_device
from quaver.precision import Format
from quaver.quality.finding import Finding
from quaver.quality.gates import DEFAULTS, Outcome, judge, read_gates
from quaver.quality.metrics import find_metrics
from quaver.quality.metrics.metric import Kind, Metric, NotMeasured, Score, Speech
from quaver.quantizing.report import Progress, Report, silent
from quaver.quantizing.speech import Spoken
from quaver.quantizing.speech import speak as say_codes

FORCED_TEXTS = 24  # that both models read; their codes are thousands of choices
SWAP_TEXTS = 6  # for each part by itself, of which there may be dozens
DENSE = "fp32"
NO_JUDGES: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class Comparison:
    """All that was found. `setup` says of what, `swaps` what each part does by itself."""

    setup: dict[str, Any]
    findings: list[Finding]
    outcomes: list[Outcome]
    replays: list[Replay]
    swaps: list[Swap] = field(default_factory=list)

    @property
    def culprits(self) -> list[str]:
        """The parts that made requirements fail; see `comparing.blame`."""
        return culprits(self.outcomes, self.findings, self.swaps)

    @property
    def blame(self) -> str:
        """The same as a sentence."""
        return sentence(self.culprits, self.swaps, self.outcomes)


@dataclass(frozen=True, slots=True)
class Named:
    """A model, the recipe to run it under and the voices it was trained with; None takes what
    `loading` takes."""

    model: str
    recipe: str | None
    voices: tuple[str, ...] | None = None

    def open(self, device: str | None, slots: int = 1) -> Loaded:
        opened = open_model(self.model, self.recipe, device, voices=self.voices, slots=slots)
        # a CPU's traces are never let go, and a search opens many models
        return replace(opened, graphs=opened.device.type != "cpu")


def compare(
    reference: Named,
    candidate: Named,
    out: Path,
    *,
    texts: Path | None = None,
    gates: Path | None = None,
    judges: Mapping[str, Path] = NO_JUDGES,
    like: Path | None = None,
    quick: bool = False,
    seeds: int = 1,
    seed: int = 0,
    device: str | None = None,
    report: Report = silent,
) -> Comparison:
    """Measure `candidate` against `reference`, keep what is made in the folder `out`, and decide.

    judges: folders of weights of judges that are too large to bring, by the names of
    `quality.metrics.JUDGES`.
    like: the folder of a comparison with the same reference, whose speech is taken over; its speed
    is not, which depends on what else the machine did.
    Stopped half-way, the same call goes on. Raises InputError or CheckpointError before the long
    work: for models that cannot be compared, a panel, gates or judges that cannot be read.
    """
    wanted = DEFAULTS if gates is None else read_gates(gates)
    metrics = find_metrics(judges)
    reference = _exact(reference, device)
    sides = {REFERENCE: reference.open(device), CANDIDATE: candidate.open(device)}
    check_alike(sides[REFERENCE], sides[CANDIDATE])
    speaker = sides[REFERENCE].prompts
    panel = make_panel(speaker.voices, texts, quick, seeds, speaker.reads_tags).spoken_by(speaker)
    setup = _setup(sides, panel, seed, metrics)
    if like is None:
        ledger = Ledger(out, setup)
    else:
        then, earlier = Ledger.opened(like)
        refuse_unlike(like, then, setup)
        ledger = Ledger(out, setup)
        take_over(like, earlier, out, ledger)
    said = _said(sides[REFERENCE], panel, seed, report)
    control = _control(reference, sides[REFERENCE], said, device)
    found, replays = _fixed(sides, said, control, metrics, seed, report)
    few = said[:SWAP_TEXTS]
    told = _told(report, "part by part", len(few) * len(parts_of(sides[REFERENCE])))
    swaps = swap(sides[REFERENCE], sides[CANDIDATE], few, told)
    heard = speak_panel(
        {**sides, AGAIN: sides[REFERENCE]},
        panel,
        metrics,
        seed,
        ledger,
        out,
        _told(report, "speaking", len(panel) * len(SIDES)),
    )
    findings = [*found, *speech_findings(heard, metrics)]
    return Comparison(setup, findings, judge(wanted, findings), replays, swaps)


def _fixed(
    sides: Mapping[str, Loaded],
    said: Sequence[tuple[str, Spoken]],
    control: list[Replay] | NotMeasured,
    metrics: Mapping[str, Metric | NotMeasured],
    seed: int,
    report: Report,
) -> tuple[list[Finding], list[Replay]]:
    """The two layers without chance: both sides are given what the reference said."""
    told = _told(report, "reading", len(said))
    replays = replay(sides[REFERENCE], sides[CANDIDATE], said, told)
    judges = {
        name: metric
        for name, metric in metrics.items()
        if not isinstance(metric, NotMeasured) and metric.kind is Kind.PAIRED
    }
    decoded = decode_both(sides, said, judges, seed, _told(report, "decoding", len(said)))
    batched = in_batch(sides[REFERENCE], said) if said else NotMeasured("nothing was said")
    found = forced_findings(replays, control, batched)
    return [*found, *codec_findings(decoded, judges)], replays


def _told(report: Report, stage: str, total: int) -> Callable[[int], None]:
    return lambda done: report(Progress(stage, done, total))


def _exact(reference: Named, device: str | None) -> Named:
    """The reference, in fp32 where the default is less though the checkpoint is dense."""
    if reference.recipe is not None or find_device(device).type != "cpu":
        return reference
    dense = stored_recipe(resolve(reference.model).path) is None
    return replace(reference, recipe=DENSE) if dense else reference


def check_alike(reference: Loaded, candidate: Loaded) -> None:
    """InputError unless both read the same tokens and speak in the same codes."""
    ours, theirs = candidate.model.config, reference.model.config
    pairs = (
        ("sample rates", candidate.codec.sample_rate, reference.codec.sample_rate),
        ("speech tokens", ours.speech.tokens, theirs.speech.tokens),
        ("vocabularies", ours.vocab_size, theirs.vocab_size),
        ("voices", ours.speech.voices, theirs.speech.voices),
        ("tokenizers", _digest(candidate.folder), _digest(reference.folder)),
    )
    for what, own, other in pairs:
        if own != other:
            raise InputError(
                f"{candidate.folder} and {reference.folder} have different {what} ({own} and "
                f"{other}); compare a model with one that was made from it"
            )


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()[:16]


def _setup(
    sides: Mapping[str, Loaded],
    panel: Panel,
    seed: int,
    metrics: Mapping[str, Metric | NotMeasured],
) -> dict[str, Any]:
    """What makes one comparison the same as another."""
    facts = {side: loaded.facts for side, loaded in sides.items()}
    kept = ("model", "revision", "recipe", "formats", "device", "parameters", "bytes")
    texts = "\n".join(panel.texts)
    return {
        "quaver": __version__,
        **{side: {key: facts[side][key] for key in kept} for side in sides},
        "weights": {side: _weights(loaded.folder) for side, loaded in sides.items()},
        "texts": len(panel.texts),
        "texts_sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "voices": list(panel.voices),
        "runs": panel.runs,
        "seed": seed,
        "judges": {
            name: metric.reason if isinstance(metric, NotMeasured) else metric.version
            for name, metric in metrics.items()
        },
    }


def _weights(folder: Path) -> str:
    """One hash of all files of weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def _said(reference: Loaded, panel: Panel, seed: int, report: Report) -> list[tuple[str, Spoken]]:
    """What the reference says to the panel's first texts, as tokens."""
    texts = panel.texts[:FORCED_TEXTS]
    spoken = say_codes(reference.model, reference.folder, texts, seed, reference.device, report)
    return [(each.text, each) for each in spoken if each.codes]


def _control(
    named: Named, reference: Loaded, said: Sequence[tuple[str, Spoken]], device: str | None
) -> list[Replay] | NotMeasured:
    """How far the reference is from its own fp32 self: what no recipe can be nearer than."""
    if set(reference.recipe.as_dict().values()) == {Format.FP32.value}:
        return NotMeasured("the reference is in fp32")
    exact = replace(named, recipe=DENSE).open(device)
    return replay(exact, reference, said, lambda done: None)


def decode_both(
    sides: Mapping[str, Loaded],
    said: Sequence[tuple[str, Spoken]],
    metrics: Mapping[str, Metric],
    seed: int,
    progress: Callable[[int], None],
) -> dict[str, list[tuple[str, Score | NotMeasured]]]:
    """The same codes, and the same noise, through both codecs; scores by metric."""
    found: dict[str, list[tuple[str, Score | NotMeasured]]] = {name: [] for name in metrics}
    for number, (text, spoken) in enumerate(said):
        speech = {}
        for name, side in sides.items():
            stream = side.codec.stream(seed + number)
            frames = side.model.layout.to_frames(spoken.tokens[-spoken.codes :])
            with cpu_threads(side.codec_threads):
                samples = [stream.push(frames.to(side.device)), stream.finish()]
            speech[name] = Speech(np.concatenate(samples), side.codec.sample_rate, text)
        for name, metric in metrics.items():
            found[name].append((text, metric.measure(speech[CANDIDATE], speech[REFERENCE])))
        progress(number + 1)
    return found
