"""`quaver quantize`: a model folder to a quantised one, a layer at a time.

A second composition root beside `loading`. Weights stream from the reader through a format into
the writer, so a model needs not fit into memory; only where a format must know its layers' inputs
is the model loaded, to speak and be watched.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quaver import __version__
from quaver.checkpoints.atomic import refuse_occupied
from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.load import is_finite
from quaver.checkpoints.names import Source
from quaver.checkpoints.packed import tensors
from quaver.checkpoints.reader import TensorReader, open_tensors
from quaver.checkpoints.schemes import KEY, quantization_config
from quaver.checkpoints.source import CONFIG, ModelFolder, resolve
from quaver.checkpoints.write import write_checkpoint
from quaver.core.errors import CheckpointError, InputError
from quaver.engine.engine import Engine, Job
from quaver.engine.keeping import DenseKeeping
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.weights import HEAD, ignored, kv_scales, normed, sources
from quaver.loading.orpheus import HEAD_LAYER, TABLE, load_orpheus
from quaver.loading.parts import find_device, read_sampling, read_tokenizer
from quaver.precision import Format, Recipe, Role, find_recipe
from quaver.precision.recipe import describe
from quaver.precision.weight import QuantisedWeight
from quaver.quant.apply import LAYERS, check_patterns, check_tied, linear_layers
from quaver.quant.calibration import Calibration, calibrate
from quaver.quant.gptq import gptq
from quaver.quant.smooth import smoothing
from quaver.quant.texts import CALIBRATION_TEXTS

MANIFEST = "quaver.json"
MAX_SHARD_BYTES = 2**30  # all that is held besides one layer
MAX_FILE_BYTES = 100 * 2**20  # of what goes along beside the weights
MAX_CALIBRATION_CHARS = 100_000
ROWS = 1024  # of a weight are compared at once, in fp32
FP8_LARGEST = torch.finfo(torch.float8_e4m3fn).max
LEAST_LARGEST = 1e-12  # of what was seen: nothing but zeros gives no scale
# Formats that are made better by knowing inputs; `Format.calibrated` ones cannot be made without.
WATCHED = frozenset({Format.FP8_STATIC, Format.INT8_DYNAMIC, Format.INT4})


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer: what was asked for, what it got, and the noise that its rounding makes.

    `sqnr_db` is the power of the weight over that of its error, 10 log10.
    """

    name: str
    wanted: str
    format: str
    sqnr_db: float
    parameters: int


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was made. Layers are sorted worst first."""

    model: str
    recipe: str
    bytes_before: int
    bytes_after: int
    layers: tuple[LayerReport, ...]
    calibration: dict[str, Any] | None

    @property
    def kept(self) -> list[LayerReport]:
        """Layers that stay dense because rounding would cost them too much."""
        return [layer for layer in self.layers if layer.format != layer.wanted]


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how far it is."""

    stage: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """A prompt and the codes that answer it: tokens [t], the last `codes` of them codes."""

    tokens: Tensor
    codes: int


Report = Callable[[Progress], None]


def quantize(
    model: str,
    out: Path,
    recipe: str,
    *,
    device: str | None = None,
    calibration: Path | None = None,
    samples: int = len(CALIBRATION_TEXTS),
    seed: int = 0,
    all_layers: bool = False,
    least_sqnr: float | None = None,
    report: Report = lambda progress: None,
) -> QuantizeReport:
    """Write the checkpoint `model` to the new folder `out`, its layers as `recipe` says.

    calibration: a file with a text a line, for the formats that must know their layers' inputs;
        None takes texts of our own, `samples` of them at most.
    all_layers: the head and the table of tokens get the backbone's format too.
    least_sqnr: layers below so many dB stay dense; None takes each format's own threshold.
    Raises InputError or CheckpointError, and leaves nothing then.
    """
    refuse_occupied(out)
    place, folder, chosen = find_device(device), resolve(model), find_recipe(recipe)
    if all_layers:
        own = chosen.format(Role.BACKBONE)
        chosen = find_recipe(f"{chosen},head={own},embed={own}")
    work = _Work(folder, chosen, place, least_sqnr)
    with open_tensors(folder.path) as reader:
        work.check(reader)
        if work.watched or work.kv is Format.FP8:
            work.look(_texts(calibration)[:samples], seed, report)
        write_checkpoint(
            out,
            work.converted(reader, report),
            config=work.config,
            extra_files=lambda: _companions(folder.path) | {MANIFEST: work.manifest()},
            max_shard_bytes=MAX_SHARD_BYTES,
        )
    return work.summary()


@dataclass
class _Work:
    """One run, from checking to the summary."""

    folder: ModelFolder
    recipe: Recipe
    device: torch.device
    least_sqnr: float | None
    layers: list[LayerReport] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    calibration: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.values = read_json(self.folder.path / CONFIG, "model configuration")
        if KEY in self.values:
            raise InputError(
                f"{self.folder.name} is quantised already "
                f"({self.values[KEY].get('quant_method', 'unknown method')}); give the original"
            )
        if not self.recipe.quantises:
            raise InputError(
                f"recipe '{self.recipe}' quantises no layer; give one that does, such as int8"
            )
        self.shape = OrpheusConfig.from_dict(self.values, self.folder.name)
        with torch.device("meta"):
            self.model = Orpheus(self.shape, self.recipe)
        self.linears = linear_layers(self.model)
        check_patterns(self.recipe, self.linears)
        self.formats = {
            name: self.recipe.layer_format(name, linear.role)
            for name, linear in self.linears.items()
        }
        self.sources = {source.target: source for source in sources(self.shape)}
        self.written = {target: source.names for target, source in self.sources.items()}
        tied = self.shape.tie_word_embeddings
        if tied and self.recipe.format(Role.EMBED).quantised:
            check_tied(self.recipe, HEAD_LAYER)
            del self.formats[HEAD_LAYER]  # it is the table
        elif tied and self.formats[HEAD_LAYER].quantised:
            # the table stays as it is, so a quantised head becomes a matrix of its own
            self.sources[HEAD.target] = Source(HEAD.target, self.sources["embed.weight"].names)
            self.written[HEAD.target] = HEAD.names
        self.formats[TABLE] = self.recipe.format(Role.EMBED)
        self.seen = Calibration()
        self.divisors: dict[str, Tensor] = {}  # by layer, and by the norm that takes them

    def check(self, reader: TensorReader) -> None:
        """Names, shapes and groups, before anything is computed."""
        missing, unread = [], set(reader.names())
        for target, source in self.sources.items():
            chosen = self.formats.get(target.removesuffix(".weight"))
            unread -= set(source.names)
            for name in source.names:
                if name not in reader.names():
                    missing.append(name)
                elif chosen is not None and chosen.quantised:
                    try:
                        LAYERS[chosen].check(reader.shape(name))
                    except InputError as error:
                        raise InputError(f"{name}: {error}") from None
        unread -= {name for name in unread if _is_ignored(name, ignored(self.shape))}
        if missing or unread:
            wrong = [
                *(f"{name} is missing" for name in missing),
                *(f"{n} is unknown" for n in unread),
            ]
            raise CheckpointError(
                f"{reader.path} does not fit its config.json: {len(wrong)} tensors differ, such as "
                f"{sorted(wrong)[0]}; download the folder again"
            )
        self.bytes_before = sum(
            math.prod(reader.shape(name)) * reader.dtype(name).itemsize for name in reader.names()
        )

    @property
    def kv(self) -> Format:
        """The cache's format, as far as a checkpoint can say it."""
        return Format.FP8 if self.recipe.format(Role.KV) is Format.FP8 else Format.BF16

    @property
    def watched(self) -> list[str]:
        """Layers whose inputs must be known."""
        return [name for name, chosen in self.formats.items() if chosen in WATCHED]

    def look(self, texts: Sequence[str], seed: int, report: Report) -> None:
        """Let the model speak `texts` and watch its layers; find out what smooths them."""
        layers = self.watched
        dense = find_recipe("fp32" if self.device.type == "cpu" else "bf16")
        model = load_orpheus(self.folder.path, self.folder.name, dense, self.device)
        spoken = speak(model, self.folder.path, texts, seed, self.device, report)
        self.seen = calibrate(
            model,
            layers,
            [each.tokens for each in spoken],
            products_of=[name for name in layers if self.formats[name] is Format.INT4],
            progress=lambda done: report(Progress("watching", done, len(spoken))),
        )
        for layer, norm in normed(self.shape).items():
            if self.formats[layer] is Format.INT8_DYNAMIC:
                largest = self.seen.inputs[layer].largest
                assert largest is not None, "it ran"
                weight = model.get_parameter(f"{layer}.weight").detach()
                divisors = smoothing(largest, weight).cpu()
                self.divisors |= {layer: divisors, norm: divisors}
        self.calibration = {
            "texts": len(texts),
            "tokens": self.seen.tokens,
            "seed": seed,
            "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        }

    def converted(self, reader: TensorReader, report: Report) -> Iterator[tuple[str, Tensor]]:
        """All tensors of the new checkpoint."""
        done = 0
        for target, source in self.sources.items():
            parts = [_read(reader, name) for name in source.names]
            done += sum(part.nbytes for part in parts)
            for name, tensor in self._convert(target, parts):
                self.bytes_after += tensor.nbytes
                yield name, tensor
            report(Progress("quantising", min(done, self.bytes_before), self.bytes_before))
        if self.seen.kv_largest is not None and self.kv is Format.FP8:
            scales = self.seen.kv_largest.clamp(min=LEAST_LARGEST) / FP8_LARGEST
            for names, pair in zip(kv_scales(self.shape), scales.cpu(), strict=True):
                yield from zip(names, pair.split(1), strict=True)

    def _convert(self, target: str, parts: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """One weight's tensors. Its parts get one format, since engines join them again."""
        layer, names = target.removesuffix(".weight"), self.written[target]
        wanted = self.formats.get(layer)
        if layer in self.divisors:  # of a layer, for its columns; of a norm, for its outputs
            divisors = self.divisors[layer]
            parts = [p * divisors if wanted is not None else p.float() / divisors for p in parts]
        if wanted is not None and wanted.quantised:
            made = [self._quantised(layer, wanted, part) for part in parts]
            if self._accepts(layer, wanted, parts, made):
                for name, weight in zip(names, made, strict=True):
                    yield from tensors(name.removesuffix(".weight"), weight)
                return
            if names != self.sources[target].names:
                return  # a head that stays dense stays tied
        dtype = self.formats.get(layer, self.recipe.format(Role.BACKBONE)).dtype
        for name, part in zip(names, parts, strict=True):
            yield name, part.to(dtype)

    def _accepts(
        self, layer: str, wanted: Format, parts: list[Tensor], made: list[QuantisedWeight]
    ) -> bool:
        """Whether rounding left enough of a layer; notes what becomes of it."""
        sqnr = _sqnr(parts, made)
        least = LAYERS[wanted].least_sqnr if self.least_sqnr is None else self.least_sqnr
        accepted = sqnr >= least
        self.formats[layer] = wanted if accepted else Format.BF16
        size = sum(part.numel() for part in parts)
        self.layers.append(LayerReport(layer, wanted, self.formats[layer], sqnr, size))
        return accepted

    def _quantised(self, layer: str, chosen: Format, weight: Tensor) -> QuantisedWeight:
        seen = self.seen.inputs.get(layer)
        weight = weight.to(self.device)
        if chosen is Format.INT4 and seen is not None and seen.products is not None:
            made = gptq(weight, seen.products)
        else:
            made = LAYERS[chosen].quantise(weight)
        input_scale = None
        if chosen.calibrated:
            assert seen is not None and seen.largest is not None, "such layers are watched"
            input_scale = (seen.largest.amax().clamp(min=LEAST_LARGEST) / FP8_LARGEST).cpu()
        return QuantisedWeight(chosen, made.elements.cpu(), made.scale.cpu(), input_scale)

    def config(self) -> dict[str, Any]:
        """The new `config.json`."""
        names: dict[str, Format] = {}
        for layer, chosen in self.formats.items():
            if layer != TABLE or chosen.quantised:  # "Linear" does not mean a table
                parts = self.written.get(f"{layer}.weight", HEAD.names)
                names |= {part.removesuffix(".weight"): chosen for part in parts}
        new = {"torch_dtype": "bfloat16", "tie_word_embeddings": self.shape.tie_word_embeddings}
        if self.formats.get(HEAD_LAYER, Format.BF16).quantised:
            new["tie_word_embeddings"] = False
        table = self.written[f"{TABLE}.weight"][0].removesuffix(".weight")
        quantised = quantization_config(names, self.kv, table if table in names else None)
        return {**self.values, **new, KEY: quantised}

    def made(self) -> Recipe:
        """The recipe of what was made: what had to stay dense is an override."""
        roles = {name: linear.role for name, linear in self.linears.items()}
        table = self.formats[TABLE]
        own = {HEAD_LAYER: table} | self.formats
        return describe({name: (role, own[name]) for name, role in roles.items()}, table, self.kv)

    def manifest(self) -> bytes:
        """`quaver.json`: where this comes from and what was done."""
        facts = {
            "quaver": __version__,
            "recipe": str(self.made()),
            "asked": str(self.recipe),
            "source": {
                "model": self.folder.name,
                "revision": self.folder.revision,
                "sha256": _hashes(self.folder.path),
            },
            "calibration": self.calibration,
            "layers": [asdict(layer) for layer in self._sorted()],
        }
        return json.dumps(facts, indent=1).encode()

    def summary(self) -> QuantizeReport:
        return QuantizeReport(
            self.folder.name,
            str(self.made()),
            self.bytes_before,
            self.bytes_after,
            self._sorted(),
            self.calibration,
        )

    def _sorted(self) -> tuple[LayerReport, ...]:
        return tuple(sorted(self.layers, key=lambda layer: layer.sqnr_db))


def speak(
    model: Orpheus,
    folder: Path,
    texts: Sequence[str],
    seed: int,
    device: torch.device,
    report: Report = lambda progress: None,
) -> list[Spoken]:
    """What the model answers to texts, by its voices in turn, each with a seed of its own."""
    speech = model.config.speech
    prompts = OrpheusPrompts(speech, read_tokenizer(folder / "tokenizer.json"))
    dtype = next(model.backbone.parameters()).dtype
    engine = Engine(
        model,
        slots=min(len(texts), 8),
        max_length=model.max_positions,
        keeping=DenseKeeping(dtype),
        hidden_dtype=dtype,
        device=device,
    )
    sampling, voices = read_sampling(folder), [*prompts.voices, None][: max(1, len(prompts.voices))]
    streams = []
    for number, text in enumerate(texts):
        prompt = prompts.prompt(text, voices[number % len(voices)], None)
        job = Job(prompt, sampling, seed + number, prompts.max_frames(text))
        streams.append((prompt, engine.submit(job)))
    sequences = []
    for number, (prompt, stream) in enumerate(streams):
        frames = list(stream)
        codes = [model.layout.to_tokens(torch.stack(frames)).flatten()] if frames else []
        tokens = torch.cat([torch.tensor(prompt.tokens), *codes]).to(device)
        sequences.append(Spoken(tokens, len(tokens) - len(prompt.tokens)))
        report(Progress("speaking", number + 1, len(texts)))
    return sequences


def _texts(file: Path | None) -> list[str]:
    if file is None:
        return list(CALIBRATION_TEXTS)
    try:
        with file.open(encoding="utf-8") as opened:
            data = opened.read(MAX_CALIBRATION_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file} as UTF-8 text ({error}); give another file") from None
    if len(data) > MAX_CALIBRATION_CHARS:
        raise InputError(f"{file} has more than {MAX_CALIBRATION_CHARS:,} characters; shorten it")
    lines = [line.strip() for line in data.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{file} has no text; give one text a line")
    return lines


def _read(reader: TensorReader, name: str) -> Tensor:
    tensor = reader.read(name)
    if not is_finite(tensor):
        raise CheckpointError(
            f"{name} of {reader.path} has infinities or NaN; it cannot be rounded"
        )
    return tensor


def _sqnr(parts: Sequence[Tensor], made: Sequence[QuantisedWeight]) -> float:
    """Power of the weights over that of their errors, in dB; infinite if there is no error."""
    power = error = 0.0
    for part, weight in zip(parts, made, strict=True):
        for rows, elements, scale in zip(
            *(tensor.split(ROWS) for tensor in (part, weight.elements, weight.scale)), strict=True
        ):
            wide = rows.float()
            back = LAYERS[weight.format].dequantise(elements, scale)
            power += float(wide.square().sum(dtype=torch.float64))
            error += float((back - wide).square().sum(dtype=torch.float64))
    return 10 * math.log10(power / error) if error and power else math.inf


def _companions(folder: Path) -> dict[str, bytes]:
    """What else belongs to a model: tokenizer, generation settings, a codec in its own folder."""
    found = {}
    for file in sorted([*folder.glob("*.json"), *folder.glob("codec/*")]):
        name = file.relative_to(folder).as_posix()
        if name in (CONFIG, MANIFEST) or name.endswith(".index.json") or not file.is_file():
            continue
        if file.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(
                f"{file} is above {MAX_FILE_BYTES:,} bytes; does it belong there?"
            )
        found[name] = file.read_bytes()
    return found


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model.bin")])
    hashes = {}
    for file in files:
        with file.open("rb") as opened:
            hashes[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return hashes


def _is_ignored(name: str, patterns: Sequence[str]) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in patterns)
