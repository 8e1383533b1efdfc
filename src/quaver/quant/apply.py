"""Putting a recipe's quantised layers into a loaded model."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from types import MappingProxyType

import torch
from torch import Tensor, nn

from quaver.core.errors import InputError
from quaver.nn.linear import Linear
from quaver.precision import Format, Recipe, Role
from quaver.precision.weight import QuantisedWeight
from quaver.quant.embedding import QuantisedEmbedding
from quaver.quant.fp8 import (
    Fp8BlockLinear,
    Fp8E5M2Linear,
    Fp8Linear,
    Fp8StaticLinear,
    Fp8WeightLinear,
)
from quaver.quant.int4 import Int4Linear
from quaver.quant.int8 import Int8DynamicLinear, Int8Linear
from quaver.quant.layer import QuantisedLinear
from quaver.quant.nf4 import Nf4Linear

LAYERS: MappingProxyType[Format, type[QuantisedLinear]] = MappingProxyType(
    {
        layer.format: layer
        for layer in (
            Fp8Linear,
            Fp8StaticLinear,
            Fp8BlockLinear,
            Fp8WeightLinear,
            Fp8E5M2Linear,
            Int8DynamicLinear,
            Int8Linear,
            Int4Linear,
            Nf4Linear,
        )
    }
)


def quantise(
    model: nn.Module, recipe: Recipe, device_type: str, move_to: torch.device | None = None
) -> None:
    """Replace the layers and tables that `recipe` quantises, one at a time: where they are, or
    moved to a device first, which then needs room for one of them only.

    Raises InputError for a shape that does not fit, with the layer's name, and for a table that is
    also a head if the two have different formats; the model must not be used then.
    """
    tables = {name: m for name, m in model.named_modules() if type(m) is nn.Embedding}
    tied = {n: h for n, t in tables.items() for h in linear_layers(model) if _is_tied(model, h, t)}
    for name, linear in linear_layers(model).items():
        chosen = recipe.layer_format(name, linear.role)
        linear.tf32 = chosen is Format.TF32
        if chosen.quantised:
            try:
                layer = LAYERS[chosen].from_linear(linear.to(move_to or linear.weight.device))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            _give_back(layer)
            put(model, name, layer, linear.role, device_type)
    chosen = recipe.format(Role.EMBED)
    for name, table in tables.items() if chosen.quantised else ():
        head = tied.get(name)
        if head is not None:
            check_tied(recipe, head)
        weight = table.weight.detach().to(move_to or table.weight.device)
        put_table(model, name, LAYERS[chosen].quantise(weight), head)


def _give_back(layer: QuantisedLinear) -> None:
    """Give a GPU back what quantising took. Weights lie within it, so they leave for the host while
    that is done."""
    device = layer.weight.device
    if device.type == "cuda":
        for weight in layer.parameters():
            weight.data = weight.data.cpu()
        torch.cuda.empty_cache()
        for weight in layer.parameters():
            weight.data = weight.data.to(device)


def check_tied(recipe: Recipe, head: str) -> None:
    """InputError unless a table and the head that it also is get one format."""
    embed, own = recipe.format(Role.EMBED), recipe.layer_format(head, Role.HEAD)
    if embed is not own:
        raise InputError(
            f"recipe '{recipe}' keeps the table in {embed} and the head in {own}, and this model "
            f"has one for both; give head={embed} as well, or leave embed out"
        )


def put_table(model: nn.Module, name: str, weight: QuantisedWeight, head: str | None) -> None:
    """Let a quantised table take the place called `name`, sharing the weight of `head` if it can:
    one that was unpacked has none to share."""
    layer = None if head is None else model.get_submodule(head)
    if isinstance(layer, QuantisedLinear):
        model.set_submodule(name, QuantisedEmbedding.sharing(layer))
    else:
        model.set_submodule(name, QuantisedEmbedding.of(LAYERS[weight.format], weight))


def _is_tied(model: nn.Module, head: str, table: nn.Embedding) -> bool:
    return model.get_submodule(head).weight is table.weight


def put(model: nn.Module, name: str, layer: QuantisedLinear, role: Role, device_type: str) -> None:
    """Let `layer` take the place called `name` of a model that will run on `device_type`.

    Where that can only emulate its format, its dense twin does: the same results, and nothing to
    unpack at each product.
    """
    model.set_submodule(name, layer.as_linear(role) if emulates(layer, device_type) else layer)


def emulates(layer: QuantisedLinear, device_type: str) -> bool:
    """Whether a device reads a layer's weight no faster than a dense one."""
    return device_type == "cpu" and not layer.reads_on_cpu


def linear_layers(model: nn.Module) -> dict[str, Linear]:
    """The layers by name that have not been quantised, nor stand in for one that has."""
    return {name: m for name, m in model.named_modules() if type(m) is Linear}


def check_patterns(recipe: Recipe, names: Iterable[str]) -> None:
    """InputError for a pattern of `recipe` that matches none of the layers called `names`."""
    known = list(names)
    for pattern, _ in recipe.layers:
        if not any(fnmatchcase(name, pattern) for name in known):
            last = known[-1] if known else "none"
            raise InputError(
                f"recipe '{recipe}': no layer is called {pattern}; the last one is {last}"
            )


def dequantise(weight: QuantisedWeight) -> Tensor:
    """What a weight as kept stands for, fp32 [out, in]."""
    return LAYERS[weight.format].dequantise(weight.elements, weight.scale)
