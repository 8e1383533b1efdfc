"""A recipe: a frozen, named map from role to format.

Written `int8`, or with overrides `int8,head=int8,kv=fp32,*.down=bf16`: a key is a role, or a
pattern of layer names (one has a dot or a star in it). A recipe prints as what it is read from.

Norms, softmax, rotary embedding, sampling and the final waveform are not roles: they are fp32
whatever the recipe says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from quaver.core.errors import InputError
from quaver.precision.roles import Format, Role


@dataclass(frozen=True, slots=True)
class Recipe:
    """Formats by role. Roles that are not named have the format `default`; the codec fp32 or,
    where others have less, tf32.

    `layers` are pairs of a pattern of layer names and a format; the last that matches counts.
    Raises InputError for a format that its role or layer cannot have.
    """

    name: str
    default: Format
    formats: tuple[tuple[Role, Format], ...] = ()
    layers: tuple[tuple[str, Format], ...] = ()

    def __post_init__(self) -> None:
        for role in Role:
            if (chosen := self.format(role)) not in role.allowed:
                raise InputError(
                    f"recipe '{self.name}' gives {role} the format {chosen}; "
                    f"allowed are {', '.join(sorted(role.allowed))}"
                )
        own = self.format(Role.BACKBONE).dtype if self.layers else None
        for pattern, chosen in self.layers:
            if chosen.dtype != own:
                raise InputError(
                    f"recipe '{self.name}' multiplies {pattern} as {chosen}, its neighbours as "
                    f"{str(own).removeprefix('torch.')}; give layers formats multiplied alike"
                )

    def format(self, role: Role) -> Format:
        default = self.default
        if role is Role.CODEC and default is not Format.FP32:
            default = Format.TF32
        return dict(self.formats).get(role, default)

    def layer_format(self, name: str, role: Role) -> Format:
        """The format of the layer called `name`, such as `backbone.layers.3.mlp.down`."""
        for pattern, chosen in reversed(self.layers):
            if fnmatchcase(name, pattern):
                return chosen
        return self.format(role)

    @property
    def quantises(self) -> bool:
        """Whether any layer or table is kept in fewer bits than it is multiplied in."""
        roles = (Role.EMBED, Role.BACKBONE, Role.HEAD)
        formats = [self.format(role) for role in roles] + [chosen for _, chosen in self.layers]
        return any(chosen.quantised for chosen in formats)

    def as_dict(self) -> dict[str, str]:
        """Formats by role and by layer pattern, for reports."""
        roles = {role.value: self.format(role).value for role in Role}
        return roles | {pattern: chosen.value for pattern, chosen in self.layers}

    def __str__(self) -> str:
        return self.name


def _named(chosen: Format) -> Recipe:
    """All of it in a dense format, or quantised layers between an embedding and a head in bf16."""
    if chosen is Format.FP8:
        return Recipe(chosen.value, Format.BF16, ((Role.BACKBONE, chosen), (Role.KV, chosen)))
    if chosen.quantised:
        return Recipe(chosen.value, Format.BF16, ((Role.BACKBONE, chosen),))
    return Recipe(chosen.value, chosen)


RECIPES = MappingProxyType({chosen.value: _named(chosen) for chosen in Format})


def find_recipe(text: str) -> Recipe:
    """The recipe written `text`. InputError says what is allowed."""
    name, *overrides = (part.strip() for part in text.split(","))
    if name not in RECIPES:
        also = "" if name == "auto" else ", and where a model is loaded auto"
        raise InputError(f"unknown recipe '{name}'; allowed are {', '.join(RECIPES)}{also}")
    base = RECIPES[name]
    if not overrides:
        return base
    formats, layers = dict(base.formats), dict(base.layers)
    for override in overrides:
        key, equals, value = (part.strip() for part in override.partition("="))
        chosen = _format(value, override) if equals else None
        if chosen is not None and key in list(Role):
            formats[Role(key)] = chosen
        elif chosen is not None and ("." in key or "*" in key):
            layers[key] = chosen
        else:
            raise InputError(
                f"'{override}' in recipe '{text}' is no override; give ROLE=FORMAT or "
                f"LAYERS=FORMAT, a role of {', '.join(Role)} or a pattern such as *.down"
            )
    changed = [
        (role, formats[role])
        for role in Role
        if role in formats and formats[role] != base.format(role)
    ]
    given = [f"{key}={chosen}" for key, chosen in (*changed, *layers.items())]
    kept = dict(base.formats) | dict(changed)  # one order, so that equal recipes are equal
    return Recipe(",".join([name, *given]), base.default, tuple(kept.items()), (*layers.items(),))


def describe(layers: Mapping[str, tuple[Role, Format]], embed: Format, kv: Format) -> Recipe:
    """The recipe of a model whose layers, by name, table and cache have these formats.

    The commonest format of the backbone names it, and what differs becomes an override.
    """
    backbone = Counter(chosen for role, chosen in layers.values() if role is Role.BACKBONE)
    base = RECIPES[max(backbone, key=lambda each: (each.quantised, backbone[each])).value]
    others = {Role.EMBED: embed, Role.KV: kv}
    overrides = [f"{r}={chosen}" for r, chosen in others.items() if chosen is not base.format(r)]
    overrides += [
        f"{role if role is Role.HEAD else name}={chosen}"
        for name, (role, chosen) in layers.items()
        if chosen is not base.format(role)
    ]
    return find_recipe(",".join([base.name, *overrides]))


def _format(value: str, override: str) -> Format:
    if value not in list(Format):
        raise InputError(f"unknown format in '{override}'; allowed are {', '.join(Format)}")
    return Format(value)
