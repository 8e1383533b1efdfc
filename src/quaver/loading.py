"""The composition root: the only module that knows every room."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.load import load_strict
from quaver.checkpoints.names import Source, weight_norm_source
from quaver.checkpoints.packed import QuantisedReader
from quaver.checkpoints.reader import TensorReader, open_tensors
from quaver.checkpoints.schemes import KEY, Schemes
from quaver.checkpoints.source import CODEC_FILES, resolve
from quaver.codecs.snac import Snac, SnacConfig
from quaver.core.errors import CheckpointError, InputError, UnsupportedError
from quaver.core.system import free_memory
from quaver.core.types import SamplingParams
from quaver.engine.engine import Engine
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.weights import ignored, sources
from quaver.nn.linear import Linear
from quaver.precision import Format, Recipe, Role, find_recipe
from quaver.precision.auto import AUTO, choose
from quaver.precision.devices import DeviceKind, default_recipe
from quaver.precision.recipe import describe
from quaver.precision.weight import stack
from quaver.quant.apply import (
    LAYERS,
    check_patterns,
    dequantise,
    linear_layers,
    put,
    quantise,
)
from quaver.quant.layer import QuantisedLinear
from quaver.synthesizer import SpeechSynthesizer

SMALL_MODEL = 100_000_000  # parameters
MAX_LENGTH = 4096  # positions kept a stream unless asked otherwise: 45 s of Orpheus's speech


def find_device(name: str | None) -> torch.device:
    """The device called `name`; None takes a GPU where there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UnsupportedError(f"unknown device '{name}'; allowed are cpu, cuda and cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise UnsupportedError(f"device '{name}' asked for, but there is no CUDA device; use cpu")
    return torch.device(name)


def load(
    model: str | Path = "nano",
    recipe: str | Recipe | None = None,
    device: str | None = None,
    *,
    codec: str | Path | None = None,
    slots: int = 4,
    max_length: int | None = None,
) -> SpeechSynthesizer:
    """Load a model, ready to speak.

    model: `nano` (bundled), a checkpoint folder, or a hub id, with `@revision` if wanted.
    recipe: written as in docs/precision.md, or a `Recipe`; `auto` takes the fastest that the device
        has room for; None takes `precision.devices.default_recipe`.
    device: `cpu`, `cuda` or `cuda:N`; None takes a GPU where there is one.
    codec: folder or hub id of the codec; None takes the one that the checkpoint names.
    slots: streams that can run at once. max_length: positions kept for each (prompt and speech).
    """
    place = find_device(device)
    folder = resolve(str(model))
    chosen, reason = _recipe(recipe, place, folder.path)
    orpheus = load_orpheus(folder.path, folder.name, chosen, place, max_length or MAX_LENGTH)
    speech = orpheus.config.speech
    snac = load_codec(_codec_folder(folder.path, str(codec or speech.codec)), place)
    if snac.config.codebook_size != speech.tokens.codebook_size:
        raise CheckpointError(
            f"the codec has {snac.config.codebook_size} codes a book and the model speaks "
            f"{speech.tokens.codebook_size}; name the codec that the model was trained with"
        )
    engine = Engine(
        orpheus,
        slots=slots,
        max_length=orpheus.max_positions,
        kv_dtype=chosen.format(Role.KV).dtype,
        hidden_dtype=chosen.format(Role.BACKBONE).dtype,
        device=place,
    )
    weights = [*orpheus.parameters(), *snac.parameters()]
    facts = {
        "model": folder.name,
        "revision": folder.revision,
        "recipe": str(chosen),
        "recipe_reason": reason,
        "formats": chosen.as_dict(),
        "device": str(place),
        "parameters": orpheus.parameter_count + sum(w.numel() for w in snac.parameters()),
        "bytes": sum(w.nbytes for w in weights),
        "step_bytes": orpheus.step_bytes,
        "cache_bytes": engine.cache_bytes,
    }
    family = OrpheusPrompts(speech, read_tokenizer(folder.path / "tokenizer.json"))
    return SpeechSynthesizer(family, engine, snac, read_sampling(folder.path), facts)


def use_fitting_threads(parameters: int) -> None:
    """Let torch use one CPU thread for a small model, all cores for a large one.

    This is the process's setting, so programs call it and `load` does not. The matrices of a small
    model are too short to share: two threads gain nothing, and when anything else wants a core
    they spin for each other and take up to ten times as long.
    """
    if parameters < SMALL_MODEL:
        torch.set_num_threads(1)


def load_codec(folder: Path, device: torch.device) -> Snac:
    """A SNAC from its folder, in fp32."""
    config = SnacConfig.from_dict(read_json(folder / "config.json", "codec configuration"))
    with torch.device("meta"):
        snac = Snac(config)
    with open_tensors(folder) as reader:
        names = reader.names()
        targets = [name for name, _ in snac.named_parameters()]
        load_strict(snac, reader, [weight_norm_source(target, names) for target in targets])
    return snac.to(device).eval()


def load_orpheus(
    folder: Path, name: str, recipe: Recipe, device: torch.device, max_length: int = MAX_LENGTH
) -> Orpheus:
    """The language model of a checkpoint folder, with room for `max_length` positions.

    Layers that the checkpoint keeps in the format that `recipe` gives them are taken as they are;
    where the recipe has a dense format they are dequantised.
    """
    values = read_json(folder / "config.json", "model configuration")
    config = OrpheusConfig.from_dict(values, name).shortened(max_length)
    with torch.device("meta"):
        model = Orpheus(config, recipe)
    check_patterns(recipe, linear_layers(model))
    # a device may have room for the quantised layers only, so those are made on the CPU
    first = torch.device("cpu") if recipe.quantises else device
    with _open(folder, values, model) as reader:
        packed = _read_packed(model, reader, recipe)
        rest, taken = [], [*ignored(config)]
        for source in sources(config):
            if source.target.removesuffix(".weight") in packed:
                taken += source.names
            else:
                rest.append(source)
        roles = {name: layer.role for name, layer in linear_layers(model).items()}
        for place in packed:
            model.set_submodule(place, nn.Identity())
        load_strict(model, reader, rest, ignore=taken, device=first)
    for place, layer in packed.items():
        put(model, place, layer, roles[place], device.type)
    quantise(model, recipe, device.type)
    model.to(device).eval()  # all, or what is not a weight: the rotary tables
    for module in model.backbone.modules():
        if isinstance(module, Linear):
            module.settle()
    return model


def stored_recipe(folder: Path) -> Recipe | None:
    """The recipe of a quantised checkpoint, as its tensors say; None if it is dense."""
    values = read_json(folder / "config.json", "model configuration")
    if KEY not in values:
        return None
    with torch.device("meta"):
        model = Orpheus(OrpheusConfig.from_dict(values, ""), find_recipe("bf16"))
    with _open(folder, values, model) as reader:
        kept = {name: _kept_format(reader, s) for name, s in _linear_sources(model).items()}
    layers = linear_layers(model).items()
    return describe({name: (m.role, kept.get(name) or Format.BF16) for name, m in layers})


def _open(folder: Path, config: dict[str, Any], model: Orpheus) -> TensorReader:
    """The tensors of a model folder, quantised or not."""
    reader = open_tensors(folder)
    if KEY not in config:
        return reader
    names = [n for source in _linear_sources(model).values() for n in source.names]
    layers = [name.removesuffix(".weight") for name in names]
    return QuantisedReader(reader, layers, Schemes(config[KEY]), dequantise)


def _linear_sources(model: Orpheus) -> dict[str, Source]:
    """Where the weights of linear layers come from, by the layers' names."""
    weights = {source.target: source for source in sources(model.config)}
    named = {name: f"{name}.weight" for name in linear_layers(model)}
    return {name: weights[weight] for name, weight in named.items() if weight in weights}


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
            raise InputError(
                f"{reader.path} keeps {name} in {kept}, and recipe '{recipe}' wants {wanted}; "
                f"leave the recipe out, or give bf16, or take the original model"
            )
        weight = stack([reader.packed(part) for part in source.names])
        if weight.shape != linears[name].weight.shape:
            raise CheckpointError(
                f"{reader.path}: {name} is {list(weight.shape)}, expected "
                f"{list(linears[name].weight.shape)}; config.json and weights are of two models"
            )
        packed[name] = LAYERS[kept](weight, None)
    return packed


def read_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json`."""
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}; a checkpoint needs its tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from None


def read_sampling(folder: Path) -> SamplingParams:
    """Sampling defaults of a checkpoint: what its `generation_config.json` sets, else Orpheus's."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return SamplingParams()
    values = read_json(path, "generation configuration")
    known = {f.name for f in fields(SamplingParams)}
    return SamplingParams().override({k: v for k, v in values.items() if k in known})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a language model in fp32, by our names."""
    model = load_orpheus(folder, folder.name, find_recipe("fp32"), torch.device("cpu"))
    return model.state_dict()


def _recipe(
    recipe: str | Recipe | None, device: torch.device, folder: Path
) -> tuple[Recipe, str | None]:
    """The recipe, and why if we chose it."""
    if isinstance(recipe, Recipe):
        return recipe, None
    if recipe not in (None, AUTO):
        return find_recipe(recipe), None
    if stored := stored_recipe(folder):
        return stored, "as the checkpoint has it" if recipe else None
    if recipe is None:
        return default_recipe(_kind(device)), None
    config = OrpheusConfig.from_dict(read_json(folder / "config.json", "model configuration"), "")
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    choice = choose(_kind(device), lambda each: _weight_bytes(config, each, device), free)
    return choice.recipe, choice.reason


def _kind(device: torch.device) -> DeviceKind:
    if device.type == "cuda":
        return DeviceKind.cuda(torch.cuda.get_device_capability(device))
    return DeviceKind.this_cpu()


def _weight_bytes(config: OrpheusConfig, recipe: Recipe, device: torch.device) -> float:
    """The most that a model's weights take on `device`, from shapes alone.

    On a CPU all of them are there before any is quantised.
    """
    with torch.device("meta"):
        model = Orpheus(config, recipe)
    dense = sum(weight.nbytes for weight in model.parameters())
    quantise(model, recipe, device.type)
    small = sum(weight.nbytes for weight in model.parameters())
    return max(dense, small) if device.type == "cpu" else small


def _codec_folder(model: Path, codec: str) -> Path:
    """A folder inside the checkpoint, or whatever `resolve` finds."""
    inside = model / codec
    return inside if inside.is_dir() else resolve(codec, CODEC_FILES).path
