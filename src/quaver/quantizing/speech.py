"""A model speaks, and its layers are watched while they read what it said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quaver.core.errors import InputError
from quaver.engine.engine import Engine, Job
from quaver.engine.keeping import DenseKeeping
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.text import OrpheusText
from quaver.families.orpheus.weights import normed
from quaver.loading.orpheus import load_orpheus
from quaver.loading.parts import read_sampling
from quaver.loading.texts import tried_tokenizer
from quaver.precision import Format, find_recipe
from quaver.quant.calibration import Calibration, calibrate
from quaver.quant.smooth import smoothing
from quaver.quant.texts import DEFAULT_SAMPLES, calibration_texts, without_tags
from quaver.quantizing.plan import Plan
from quaver.quantizing.report import Progress, Report, silent
from quaver.text.reading import read_text
from quaver.text.segments import Segment

MAX_TEXTS, MAX_CHARS = 1000, 400  # of a file of texts, and of one of them
SLOTS = 8  # texts that are spoken at once


@dataclass(frozen=True, slots=True)
class Spoken:
    """A prompt and the codes that answer it: tokens [t], the last `codes` of them codes; `text` is
    what the prompt says."""

    tokens: Tensor
    codes: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen. `divisors` [in] smooth a layer's inputs: by the layer, whose columns they
    multiply, and by the norm before it, which takes them. `facts` are for the record."""

    seen: Calibration = field(default_factory=Calibration)
    divisors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Texts:
    """Calibration texts. `asked` is how many were wanted, `source` whose they are."""

    texts: tuple[str, ...]
    asked: int
    source: str

    @property
    def note(self) -> str:
        """How many are used, in a sentence."""
        used = len(self.texts)
        if used < self.asked:
            return f"calibrated on {used} texts, not {self.asked}: {self.source} has no more"
        return f"calibrated on {used} texts of {self.source}"


def watch(plan: Plan, chosen: Texts, seed: int, device: torch.device, report: Report) -> Watched:
    """Let the model of `plan` speak the chosen texts, and gather what its formats must know."""
    dense = find_recipe("fp32" if device.type == "cpu" else "bf16")
    model = load_orpheus(plan.folder.path, plan.folder.name, dense, device)
    texts = chosen.texts
    if not OrpheusText(model.config.speech).reads_tags:
        texts = tuple(without_tags(text) for text in texts)
    spoken = speak(model, plan.folder.path, texts, seed, device, report)
    layers = plan.watched
    seen = calibrate(
        model,
        layers,
        [each.tokens for each in spoken],
        products_of=[name for name in layers if plan.formats[name] is Format.INT4],
        progress=lambda done: report(Progress("watching", done, len(spoken))),
    )
    facts = {
        "texts": len(texts),
        "asked": chosen.asked,
        "source": chosen.source,
        "note": chosen.note,
        "tokens": seen.tokens,
        "seed": seed,
        "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }
    return Watched(seen, _divisors(plan, model, seen), facts)


def speak(
    model: Orpheus,
    folder: Path,
    texts: Sequence[str],
    seed: int,
    device: torch.device,
    report: Report = silent,
) -> list[Spoken]:
    """What the model answers to texts, by its voices in turn, each segment with a seed of its own.

    Raises InputError, before anything is spoken, for a text that the model cannot read.
    """
    with tried_tokenizer(folder) as checked:
        pass
    family = OrpheusPrompts(model.config.speech, checked.open(model.config.vocab_size))
    sampling = read_sampling(folder)
    voices: list[str | None] = [*family.voices] or [None]
    jobs: list[Job] = []
    segments: list[str] = []
    for number, text in enumerate(texts):
        voice = voices[number % len(voices)]
        for segment in _segments(number, text, family, voice):
            prompt, limit = (
                family.prompt(segment.text, voice, None),
                family.max_frames(segment.text),
            )
            jobs.append(Job(prompt, sampling, seed + len(jobs), limit))
            segments.append(segment.text)
    each = model.positions_per_frame
    longest = max(len(job.prompt.tokens) + each * job.max_frames for job in jobs)
    dtype = next(model.backbone.parameters()).dtype
    engine = Engine(
        model,
        slots=min(len(jobs), SLOTS),
        max_length=min(longest, model.max_positions),
        keeping=DenseKeeping(dtype),
        hidden_dtype=dtype,
        device=device,
    )
    spoken = []
    streams = [engine.submit(job) for job in jobs]
    for number, (job, text, stream) in enumerate(zip(jobs, segments, streams, strict=True)):
        frames = list(stream)
        codes = [model.layout.to_tokens(torch.stack(frames)).flatten()] if frames else []
        tokens = torch.cat([torch.tensor(job.prompt.tokens), *codes]).to(device)
        spoken.append(Spoken(tokens, len(tokens) - len(job.prompt.tokens), text))
        report(Progress("speaking", number + 1, len(jobs)))
    return spoken


def _segments(
    number: int, text: str, family: OrpheusPrompts, voice: str | None
) -> tuple[Segment, ...]:
    try:
        return read_text(text, family, voice).segments
    except InputError as error:
        raise InputError(f"text {number + 1}: {error}") from None


def read_texts(file: Path | None, count: int | None) -> Texts:
    """The first `count` texts of a file, one a line, or of our own where `file` is None. `count`
    None takes all of a file, and `DEFAULT_SAMPLES` of our own.

    InputError for a file that cannot be read, is not UTF-8, has no text, or too much.
    """
    if file is None:
        asked = DEFAULT_SAMPLES if count is None else count
        return Texts(calibration_texts()[:asked], asked, "Quaver's own")
    lines = _lines(file)
    return Texts(tuple(lines[:count]), len(lines) if count is None else count, file.name)


def _lines(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            data = opened.read(MAX_TEXTS * (MAX_CHARS + 2) + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file} as UTF-8 text ({error}); give another file") from None
    lines = [line.strip() for line in data.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{file} has no text; give one text a line")
    if len(lines) > MAX_TEXTS:
        raise InputError(f"{file} has more than {MAX_TEXTS} texts; shorten it")
    if long := next((line for line in lines if len(line) > MAX_CHARS), None):
        raise InputError(
            f"{file} has a text of {len(long)} characters or more; "
            f"at most {MAX_CHARS} are allowed, one text a line"
        )
    return lines


def _divisors(plan: Plan, model: Orpheus, seen: Calibration) -> dict[str, Tensor]:
    """What smooths the inputs of layers that round them to whole numbers."""
    found: dict[str, Tensor] = {}
    for layer, norm in normed(plan.shape).items():
        if plan.formats[layer] is Format.INT8_DYNAMIC:
            largest = seen.inputs[layer].largest
            assert largest is not None, "the layer ran"
            weight = model.get_parameter(f"{layer}.weight").detach()
            divisors = smoothing(largest, weight).cpu()
            found |= {layer: divisors, norm: divisors}
    return found
