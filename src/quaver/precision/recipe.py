"""A recipe: a frozen, named map from role to format.

Norms, softmax, rotary embedding, sampling and the final waveform are not roles: they are fp32
whatever the recipe says.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from quaver.core.errors import InputError
from quaver.precision.roles import Format, Role


@dataclass(frozen=True, slots=True)
class Recipe:
    """Formats by role. Roles that are not named have the format `default`."""

    name: str
    default: Format
    formats: tuple[tuple[Role, Format], ...] = ()

    def format(self, role: Role) -> Format:
        return dict(self.formats).get(role, self.default)

    def as_dict(self) -> dict[str, str]:
        return {role.value: self.format(role).value for role in Role}

    def __str__(self) -> str:
        return self.name


# The codec stays fp32 under bf16: it is a few percent of the work, and its error is heard directly.
RECIPES = MappingProxyType(
    {
        "fp32": Recipe("fp32", Format.FP32),
        "bf16": Recipe("bf16", Format.BF16, ((Role.CODEC, Format.FP32),)),
    }
)


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, or an InputError that lists them."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe '{name}'; allowed are {', '.join(RECIPES)}")
    return RECIPES[name]


def default_recipe(device_type: str) -> Recipe:
    """bf16 on an accelerator; fp32 on CPUs, few of which multiply bf16 faster."""
    return RECIPES["bf16" if device_type == "cuda" else "fp32"]
