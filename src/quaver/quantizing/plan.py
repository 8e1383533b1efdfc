"""What is to be done with a model: which layer gets which format, from which tensors to which."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.names import Source
from quaver.checkpoints.reader import TensorReader
from quaver.checkpoints.schemes import stored_config
from quaver.checkpoints.source import CONFIG, ModelFolder
from quaver.core.errors import CheckpointError, InputError
from quaver.core.section import shown
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.weights import HEAD, ignored, sources
from quaver.loading.orpheus import HEAD_LAYER, TABLE
from quaver.precision import Format, Recipe, Role
from quaver.quant.apply import LAYERS, check_patterns, check_tied, linear_layers

# Formats that are made better by knowing inputs; `Format.calibrated` ones cannot be made without.
WATCHED = frozenset({Format.FP8_STATIC, Format.INT8_DYNAMIC, Format.INT4})


@dataclass(frozen=True, slots=True)
class Plan:
    """One model under one recipe.

    `formats` and `roles` are by our names of layers, the table of tokens among the former; a head
    that is a quantised table has no format of its own. `sources` say which tensors each weight is
    read from, `written` under which names it is written, both by weight.
    """

    folder: ModelFolder
    recipe: Recipe
    values: dict[str, Any]  # of config.json
    shape: OrpheusConfig
    formats: dict[str, Format]
    roles: dict[str, Role]
    sources: dict[str, Source]
    written: dict[str, tuple[str, ...]]

    @property
    def kv(self) -> Format:
        """The cache's format, as far as a checkpoint can say it."""
        return Format.FP8 if self.recipe.format(Role.KV) is Format.FP8 else Format.BF16

    @property
    def watched(self) -> list[str]:
        """Layers whose inputs must be known."""
        # a table has no inputs but tokens
        return [n for n, chosen in self.formats.items() if chosen in WATCHED and n != TABLE]

    @property
    def table(self) -> str:
        """The name of the table of tokens in the file, without `.weight`."""
        return self.written[f"{TABLE}.weight"][0].removesuffix(".weight")


def make_plan(folder: ModelFolder, recipe: Recipe) -> Plan:
    """InputError for a model that is quantised already, and for a recipe that does not fit it."""
    values = read_json(folder.path / CONFIG, "model configuration")
    if (stored := stored_config(values)) is not None:
        method = shown(stored.get("quant_method", "unknown method"))
        raise InputError(f"{folder.name} is quantised already ({method}); give the original")
    _check_recipe(recipe)
    shape = OrpheusConfig.from_dict(values, folder.name, str(folder.path / CONFIG))
    with torch.device("meta"):
        linears = linear_layers(Orpheus(shape.shortened(1), recipe))
    check_patterns(recipe, linears)
    roles = {name: linear.role for name, linear in linears.items()}
    formats = {name: recipe.layer_format(name, role) for name, role in roles.items()}
    reads = {source.target: source for source in sources(shape)}
    written = {target: source.names for target, source in reads.items()}
    embed = recipe.format(Role.EMBED)
    if shape.tie_word_embeddings and embed.quantised:
        check_tied(recipe, HEAD_LAYER)
        del formats[HEAD_LAYER]  # it is the table
    elif shape.tie_word_embeddings and formats[HEAD_LAYER].quantised:
        # the table stays as it is, so a quantised head becomes a matrix of its own
        reads[HEAD.target] = Source(HEAD.target, reads[f"{TABLE}.weight"].names)
        written[HEAD.target] = HEAD.names
    formats[TABLE] = embed
    return Plan(folder, recipe, values, shape, formats, roles, reads, written)


def _check_recipe(recipe: Recipe) -> None:
    """InputError for what a checkpoint cannot say."""
    if not recipe.quantises:
        raise InputError(f"recipe '{recipe}' quantises no layer; give one that does, such as int8")
    for role in (Role.EMBED, Role.BACKBONE, Role.HEAD):
        chosen = recipe.format(role)
        if not chosen.quantised and chosen is not Format.BF16:
            raise InputError(
                f"recipe '{recipe}' has {role} in {chosen}; what stays dense is written in bf16"
            )
    kv = recipe.format(Role.KV)
    if kv not in (Format.BF16, Format.FP8):
        raise InputError(
            f"recipe '{recipe}' keeps keys and values in {kv}, which a checkpoint does not say; "
            "leave it out here, and give it when the result is loaded"
        )


def check_tensors(plan: Plan, reader: TensorReader) -> int:
    """Names, shapes and groups, before anything is computed; returns the tensors' bytes.

    Raises CheckpointError for tensors missing or unknown, InputError for shapes that a format does
    not fit.
    """
    names = reader.names()
    needed = {name for source in plan.sources.values() for name in source.names}
    extra = {
        name
        for name in names - needed
        if not any(fnmatchcase(name, pattern) for pattern in ignored(plan.shape))
    }
    wrong = [f"{name} is missing" for name in sorted(needed - names)]
    wrong += [f"{name} is unknown" for name in sorted(extra)]
    if wrong:
        raise CheckpointError(
            f"{reader.path} does not fit its config.json: {len(wrong)} tensors differ, such as "
            f"{wrong[0]}; download the folder again"
        )
    for target, source in plan.sources.items():
        chosen = plan.formats.get(target.removesuffix(".weight"), Format.BF16)
        for name in source.names if chosen.quantised else ():
            try:
                LAYERS[chosen].check(reader.shape(name))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
    return sum(math.prod(reader.shape(name)) * reader.dtype(name).itemsize for name in names)
