"""`quaver quantize`: a model folder to a quantised one.

A second composition root beside `loading`. `plan` decides, `speech` lets the model speak where its
formats must know what its layers see, `convert` streams the weights, and here it becomes a folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quaver import __version__
from quaver.checkpoints.atomic import refuse_occupied
from quaver.checkpoints.reader import open_tensors
from quaver.checkpoints.schemes import KEY, quantization_config
from quaver.checkpoints.source import CONFIG, resolve
from quaver.checkpoints.write import write_checkpoint
from quaver.core.errors import CheckpointError
from quaver.families.orpheus.weights import HEAD
from quaver.loading.orpheus import HEAD_LAYER, TABLE
from quaver.loading.parts import find_device
from quaver.precision import Format, Recipe, Role, find_recipe
from quaver.precision.recipe import describe
from quaver.quantizing.convert import Converter
from quaver.quantizing.plan import Plan, check_tensors, make_plan
from quaver.quantizing.report import LayerReport, QuantizeReport, Report, silent
from quaver.quantizing.speech import Watched, read_texts, watch

MANIFEST = "quaver.json"
MAX_SHARD_BYTES = 2**30  # all that is held besides one layer
MAX_FILE_BYTES = 100 * 2**20  # of what goes along beside the weights


def quantize(
    model: str,
    out: Path,
    recipe: str,
    *,
    device: str | None = None,
    calibration: Path | None = None,
    samples: int | None = None,
    seed: int = 0,
    all_layers: bool = False,
    least_sqnr: float | None = None,
    report: Report = silent,
) -> QuantizeReport:
    """Write the checkpoint `model` to the new folder `out`, its layers as `recipe` says.

    calibration: a file with a text a line, for the formats that must know their layers' inputs;
        None takes texts of our own. samples: how many texts; None takes all of a file, and
        `quant.texts.DEFAULT_SAMPLES` of our own.
    all_layers: the head and the table of tokens get the backbone's format too.
    least_sqnr: layers below so many dB stay dense; None takes each format's own threshold.
    Raises InputError or CheckpointError, and leaves nothing then.
    """
    refuse_occupied(out)
    place, chosen = find_device(device), find_recipe(recipe)
    if all_layers:
        own = chosen.format(Role.BACKBONE)
        chosen = find_recipe(f"{chosen},head={own},embed={own}")
    plan = make_plan(resolve(model), chosen)
    texts = read_texts(calibration, samples)
    with open_tensors(plan.folder.path) as reader:
        size, others = check_tensors(plan, reader), _companions(plan.folder.path)
        watched = Watched()
        if plan.watched or plan.kv is Format.FP8:
            watched = watch(plan, texts, seed, place, report)
        converter = Converter(plan, watched, place, least_sqnr)
        write_checkpoint(
            out,
            converter.run(reader, size, report),
            config=lambda: _config(plan, converter.formats),
            extra_files=lambda: {**others, MANIFEST: _manifest(plan, converter, watched)},
            max_shard_bytes=MAX_SHARD_BYTES,
        )
    return QuantizeReport(
        plan.folder.name,
        str(_made(plan, converter.formats)),
        size,
        converter.bytes,
        _worst_first(converter),
        watched.facts,
    )


def _config(plan: Plan, formats: dict[str, Format]) -> dict[str, Any]:
    """The new `config.json`."""
    names: dict[str, Format] = {}
    for layer, chosen in formats.items():
        if layer != TABLE or chosen.quantised:  # a dense table needs no word: it is no linear layer
            parts = plan.written.get(f"{layer}.weight", HEAD.names)
            names |= {part.removesuffix(".weight"): chosen for part in parts}
    untied = formats.get(HEAD_LAYER, Format.BF16).quantised
    new = {
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": plan.shape.tie_word_embeddings and not untied,
    }
    quantised = quantization_config(names, plan.kv, plan.table if plan.table in names else None)
    return {**plan.values, **new, KEY: quantised}


def _made(plan: Plan, formats: dict[str, Format]) -> Recipe:
    """The recipe of what was made: what had to stay dense is an override."""
    table = formats[TABLE]
    own = {HEAD_LAYER: table} | formats
    return describe({n: (role, own[n]) for n, role in plan.roles.items()}, table, plan.kv)


def _manifest(plan: Plan, converter: Converter, watched: Watched) -> bytes:
    """`quaver.json`: where this comes from and what was done."""
    facts = {
        "quaver": __version__,
        "recipe": str(_made(plan, converter.formats)),
        "asked": str(plan.recipe),
        "source": {
            "model": plan.folder.name,
            "revision": plan.folder.revision,
            "sha256": _hashes(plan.folder.path),
        },
        "calibration": watched.facts,
        "layers": [asdict(layer) for layer in _worst_first(converter)],
    }
    return json.dumps(facts, indent=1, allow_nan=False).encode()


def _worst_first(converter: Converter) -> tuple[LayerReport, ...]:
    return tuple(sorted(converter.layers, key=lambda layer: layer.sqnr_db))


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
    hashes = {}
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            hashes[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return hashes
