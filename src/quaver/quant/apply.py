"""Putting a recipe's quantised layers into a loaded model."""

from __future__ import annotations

from fnmatch import fnmatchcase
from types import MappingProxyType

from torch import nn

from quaver.core.errors import InputError
from quaver.nn.linear import Linear
from quaver.precision import Format, Recipe
from quaver.quant.fp8 import Fp8E5M2Linear, Fp8Linear
from quaver.quant.int8 import Int8Linear
from quaver.quant.layer import QuantisedLinear
from quaver.quant.nf4 import Nf4Linear

LAYERS: MappingProxyType[Format, type[QuantisedLinear]] = MappingProxyType(
    {
        Format.FP8_WEIGHT: Fp8Linear,
        Format.FP8_E5M2: Fp8E5M2Linear,
        Format.INT8: Int8Linear,
        Format.NF4: Nf4Linear,
    }
)


def quantise(model: nn.Module, recipe: Recipe, device_type: str) -> None:
    """Replace the linear layers that `recipe` quantises, one at a time, where they are.

    `device_type` is where the model will run. Where that can only emulate a format, a layer gets
    the weight that the format would give, in bf16: the same results, and nothing to unpack at each
    product.

    Raises InputError for a pattern that no layer matches and for a shape that does not fit, with
    the layer's name; the model must not be used then.
    """
    linears = {name: m for name, m in model.named_modules() if isinstance(m, Linear)}
    for pattern, _ in recipe.layers:
        if not any(fnmatchcase(name, pattern) for name in linears):
            raise InputError(
                f"recipe '{recipe}': no layer is called {pattern}; the last one is "
                f"{next(reversed(linears), 'none')}"
            )
    for name, linear in linears.items():
        chosen = recipe.layer_format(name, linear.role)
        if chosen.quantised:
            try:
                layer = LAYERS[chosen].from_linear(linear)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
            emulate = device_type == "cpu" and not layer.reads_on_cpu
            model.set_submodule(name, layer.as_linear(linear.role) if emulate else layer)
