"""The language model of a checkpoint folder, dense or quantised, under any recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.load import load_strict
from quaver.checkpoints.names import Source
from quaver.checkpoints.packed import QuantisedReader
from quaver.checkpoints.reader import TensorReader, open_tensors
from quaver.checkpoints.schemes import Schemes, stored_config
from quaver.checkpoints.source import CONFIG
from quaver.core.errors import CheckpointError, InputError
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.weights import ignored, kv_scales, sources
from quaver.loading.hosting import keep_text_on_host
from quaver.nn.linear import Linear
from quaver.precision import Format, Recipe, Role, find_recipe
from quaver.precision.recipe import describe
from quaver.precision.weight import QuantisedWeight, stack
from quaver.quant.apply import (
    LAYERS,
    check_patterns,
    check_tied,
    dequantise,
    linear_layers,
    put,
    put_table,
    quantise,
)
from quaver.quant.layer import QuantisedLinear

TABLE, HEAD_LAYER = "embed", "head"  # what `Orpheus` calls them
MAX_LENGTH = 4096  # positions kept a stream unless asked otherwise: 45 s of Orpheus's speech


def load_orpheus(
    folder: Path,
    name: str,
    recipe: Recipe,
    device: torch.device,
    max_length: int = MAX_LENGTH,
    text_on_host: bool = False,
) -> Orpheus:
    """The language model of a checkpoint folder, with room for `max_length` positions.

    With `text_on_host`, only what speech needs of the token table is on the device.

    Layers that the checkpoint keeps in the format that `recipe` gives them are taken as they are;
    where the recipe has a dense format they are dequantised.
    """
    values = read_json(folder / CONFIG, "model configuration")
    config = OrpheusConfig.from_dict(values, name, str(folder / CONFIG)).shortened(max_length)
    with torch.device("meta"):
        model = Orpheus(config, recipe)
    check_patterns(recipe, linear_layers(model))
    # a device may have room for the quantised layers only, so those are made on the CPU
    first = torch.device("cpu") if recipe.quantises else device
    roles = {name: layer.role for name, layer in linear_layers(model).items()}
    with _open(folder, values, model) as reader:
        packed, table = _read_packed(model, reader, recipe), _read_table(model, reader, recipe)
        if table is not None and config.tie_word_embeddings:
            packed[HEAD_LAYER] = LAYERS[table.format](table, None)
        model.kv_scales, scale_names = _read_kv_scales(config, reader)
        gone = {*packed} if table is None else {*packed, TABLE}
        for place in gone:
            model.set_submodule(place, nn.Identity())
        plan = sources(config)
        rest = [s for s in plan if s.target.removesuffix(".weight") not in gone]
        taken = [name for source in plan if source not in rest for name in source.names]
        done = [*ignored(config), *scale_names, *taken]
        load_strict(model, reader, rest, ignore=done, device=first)
    for place, layer in packed.items():
        put(model, place, layer, roles[place], device.type)
    if table is not None:
        put_table(model, TABLE, table, HEAD_LAYER if config.tie_word_embeddings else None)
    quantise(model, recipe, device.type, device)
    if text_on_host:
        keep_text_on_host(model)
    model.to(device).eval()  # all, or what is not a weight: the rotary tables
    for module in model.backbone.modules():
        if isinstance(module, Linear):
            module.settle()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what loading needed for a while
    return model


def read_config(folder: Path, name: str = "") -> OrpheusConfig:
    """The configuration of a checkpoint folder; `name` as for `OrpheusConfig.from_dict`."""
    file = folder / CONFIG
    return OrpheusConfig.from_dict(read_json(file, "model configuration"), name, str(file))


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe of a quantised checkpoint, as its tensors say; None if it is dense."""
    values = read_json(folder / CONFIG, "model configuration")
    if stored_config(values) is None:
        return None
    with torch.device("meta"):
        model = Orpheus(read_config(folder).shortened(1), find_recipe("bf16"))
    layers = linear_layers(model).items()
    with _open(folder, values, model) as reader:
        kept = {name: _kept_format(reader, s) for name, s in _linear_sources(model).items()}
        embed = _kept_format(reader, _table_source(model)) or Format.BF16
        scales, _ = _read_kv_scales(model.config, reader)
        # without scales a cache was never calibrated, whatever the configuration says
        kv = reader.kv if isinstance(reader, QuantisedReader) and scales is not None else None
    formats = {name: (m.role, kept.get(name) or Format.BF16) for name, m in layers}
    if model.config.tie_word_embeddings and embed.quantised:
        formats[HEAD_LAYER] = (Role.HEAD, embed)
    return describe(formats, embed, kv or Format.BF16)


def _open(folder: Path, config: dict[str, Any], model: Orpheus) -> TensorReader:
    """The tensors of a model folder, quantised or not."""
    reader = open_tensors(folder)
    stored = stored_config(config)
    if stored is None:
        return reader
    listed = _linear_sources(model).values()
    layers = [name.removesuffix(".weight") for source in listed for name in source.names]
    table = _table_source(model).names[0].removesuffix(".weight")
    return QuantisedReader(reader, layers, Schemes(stored), dequantise, table)


def _linear_sources(model: Orpheus) -> dict[str, Source]:
    """Where the weights of linear layers come from, by the layers' names."""
    weights = {source.target: source for source in sources(model.config)}
    named = {name: f"{name}.weight" for name in linear_layers(model)}
    return {name: weights[weight] for name, weight in named.items() if weight in weights}


def _table_source(model: Orpheus) -> Source:
    return next(s for s in sources(model.config) if s.target == f"{TABLE}.weight")


def _read_table(model: Orpheus, reader: TensorReader, recipe: Recipe) -> QuantisedWeight | None:
    """The table of tokens, if the file has it as the recipe wants it."""
    source, wanted = _table_source(model), recipe.format(Role.EMBED)
    kept = _kept_format(reader, source)
    if kept is None or not wanted.quantised:
        return None
    if wanted is not kept:
        raise _other_format(reader, TABLE, kept, recipe, wanted)
    if model.config.tie_word_embeddings:
        check_tied(recipe, HEAD_LAYER)
    assert isinstance(reader, QuantisedReader)
    weight = reader.packed(source.names[0])
    _check_shape(reader, TABLE, weight, model.embed.weight.shape)
    return weight


def _check_shape(
    reader: TensorReader, name: str, weight: QuantisedWeight, wanted: Sequence[int]
) -> None:
    if weight.shape != tuple(wanted):
        raise CheckpointError(
            f"{reader.path}: {name} is {list(weight.shape)}, expected {list(wanted)}; config.json "
            "and weights are of two models"
        )


def _other_format(
    reader: TensorReader, name: str, kept: Format, recipe: Recipe, wanted: Format
) -> InputError:
    return InputError(
        f"{reader.path} keeps {name} in {kept}, and recipe '{recipe}' wants {wanted}; "
        "leave the recipe out, or give bf16, or take the original model"
    )


def _kept_format(reader: TensorReader, source: Source) -> Format | None:
    """The format that a file has for all parts of a layer; None if they are dense or differ."""
    if not isinstance(reader, QuantisedReader):
        return None
    formats = {reader.format(name) for name in source.names}
    return formats.pop() if len(formats) == 1 else None


def _read_packed(
    model: Orpheus, reader: TensorReader, recipe: Recipe
) -> dict[str, QuantisedLinear]:
    """The layers, by name, that the file has as the recipe wants them."""
    if not isinstance(reader, QuantisedReader):
        return {}
    packed: dict[str, QuantisedLinear] = {}
    linears = linear_layers(model)
    for name, source in _linear_sources(model).items():
        wanted, kept = recipe.layer_format(name, linears[name].role), _kept_format(reader, source)
        if kept is None or not wanted.quantised:
            continue
        if wanted is not kept:
            raise _other_format(reader, name, kept, recipe, wanted)
        parts = [reader.packed(part) for part in source.names]
        shapes = source.shapes(linears[name].weight.shape)
        for part, weight, shape in zip(source.names, parts, shapes, strict=True):
            _check_shape(reader, part, weight, shape)
        if len({part.scale.shape[1] for part in parts}) > 1:
            raise CheckpointError(f"{reader.path}: the parts of {name} have groups of two sizes")
        packed[name] = LAYERS[kept](stack(parts), None)
    return packed


def _read_kv_scales(config: OrpheusConfig, reader: TensorReader) -> tuple[Tensor | None, list[str]]:
    """Scales of keys and values [layers, 2], and their names; nothing where none were calibrated.

    A file has all of them or none.
    """
    pairs = kv_scales(config)
    names = [name for pair in pairs for name in pair]
    there = [name for name in names if name in reader.names()]
    if not there:
        return None, []
    if len(there) < len(names):
        raise CheckpointError(
            f"{reader.path} has {len(there)} scales of keys and values and {len(names)} belong to "
            "it; download it again"
        )
    scales = [reader.read(name) for name in names]
    if any(scale.numel() != 1 or not 0 < float(scale) < float("inf") for scale in scales):
        raise CheckpointError(
            f"{reader.path}: scales of keys and values must be one positive number a layer"
        )
    return torch.tensor([float(scale) for scale in scales]).view(len(pairs), 2), names


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a language model in fp32, by our names."""
    model = load_orpheus(folder, folder.name, find_recipe("fp32"), torch.device("cpu"))
    return model.state_dict()
