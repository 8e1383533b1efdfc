"""`quantization_config` of a `config.json`: which layer is kept how, read and written.

Written is the layout of compressed-tensors (https://github.com/vllm-project/compressed-tensors).
Two formats that it lacks, fp8-e5m2 and nf4, are written in its manner under a method of our own, so
that others refuse them by name. Read are that, Hugging Face's `fp8` and bitsandbytes. A scheme that
is not known is an error that names it: weights misread still speak, only worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from quaver.checkpoints.pattern_nodes import Budget
from quaver.checkpoints.patterns import Pattern
from quaver.core.errors import CheckpointError, printable
from quaver.core.section import Section, shown
from quaver.precision import Format

KEY = "quantization_config"
LINEAR, TABLE = "Linear", "Embedding"  # classes, as targets name them
METHOD, OWN_METHOD = "compressed-tensors", "quaver"


class Layout(StrEnum):
    """How the tensors of a layer are named and packed; see `quaver.checkpoints.packed`."""

    FLOAT = "float-quantized"
    INTEGER = "int-quantized"
    PACKED = "pack-quantized"
    NF4 = "nf4-packed"
    FINEGRAINED = "fp8"
    BITSANDBYTES8 = "bitsandbytes 8-bit"
    BITSANDBYTES4 = "bitsandbytes nf4"


@dataclass(frozen=True, slots=True)
class Scheme:
    """The format of a layer, and how a file keeps it."""

    format: Format
    layout: Layout
    group: int | None = None  # inputs that share a scale; None: a row, a block or a tensor


def _weights(kind: str, bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    common = {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True}
    return {**common, "dynamic": False, **more}


def _inputs(kind: str, strategy: str, dynamic: bool, **more: Any) -> dict[str, Any]:
    common = {"num_bits": 8, "type": kind, "strategy": strategy, "symmetric": True}
    return {**common, "dynamic": dynamic, **more}


_ROWS_FP8 = _weights("float", 8, "channel")
# What is written for each format: layout, weights, inputs.
_WRITTEN: Mapping[Format, tuple[Layout, dict[str, Any], dict[str, Any] | None]] = {
    Format.FP8: (Layout.FLOAT, _ROWS_FP8, _inputs("float", "token", True)),
    Format.FP8_STATIC: (Layout.FLOAT, _ROWS_FP8, _inputs("float", "tensor", False)),
    Format.FP8_BLOCK: (
        Layout.FLOAT,
        _weights("float", 8, "block", block_structure=[128, 128]),
        _inputs("float", "group", True, group_size=128),
    ),
    Format.FP8_WEIGHT: (Layout.FLOAT, _ROWS_FP8, None),
    Format.FP8_E5M2: (Layout.FLOAT, {**_ROWS_FP8, "type": "float-e5m2"}, None),
    Format.INT8_DYNAMIC: (
        Layout.INTEGER,
        _weights("int", 8, "channel"),
        _inputs("int", "token", True),
    ),
    Format.INT8: (Layout.PACKED, _weights("int", 8, "channel"), None),
    Format.INT4: (Layout.PACKED, _weights("int", 4, "group", group_size=128), None),
    Format.NF4: (Layout.NF4, _weights("nf4", 4, "group", group_size=64), None),
}
_KV_FP8 = _weights("float", 8, "tensor")
_OWN = (Format.FP8_E5M2, Format.NF4)
MAX_NAME = 300  # characters of a target
MAX_NAMES = 100_000  # of targets and of what is ignored
MAX_GROUPS = 1000
MAX_GROUP = 2**20  # inputs that share a scale
_MIXED = "mixed-precision"
_NAIVE = "naive-quantized"  # an old name for weights that are not packed


def quantization_config(
    layers: Mapping[str, Format], kv: Format, table: str | None = None
) -> dict[str, Any]:
    """The value of `quantization_config` for linear layers by their names in the file, a cache, and
    a table of tokens if that is quantised too (it is among `layers`, and only we read it).

    The commonest quantised format is said of all layers, the others name theirs.
    """
    groups: dict[Format, list[str]] = {}
    for name, chosen in layers.items():
        groups.setdefault(chosen, []).append(name)
    dense = [name for chosen, names in groups.items() if not chosen.quantised for name in names]
    ranked = sorted(
        (chosen for chosen in groups if chosen.quantised), key=lambda each: -len(groups[each])
    )
    config_groups = {}
    for number, chosen in enumerate(ranked):
        layout, weights, inputs = _WRITTEN[chosen]
        named = groups[chosen] if number else [n for n in groups[chosen] if n == table]
        targets = named if number else [LINEAR, *named]
        config_groups[f"group_{number}"] = {
            "targets": targets,
            "weights": dict(weights),
            "input_activations": None if inputs is None else dict(inputs),
            "output_activations": None,
            "format": layout.value,
        }
    layouts = {_WRITTEN[chosen][0].value for chosen in ranked}
    return {
        "quant_method": OWN_METHOD if table or set(ranked) & set(_OWN) else METHOD,
        "format": layouts.pop() if len(layouts) == 1 else _MIXED,
        "quantization_status": "compressed",
        "config_groups": config_groups,
        "ignore": dense,
        "kv_cache_scheme": dict(_KV_FP8) if kv is Format.FP8 else None,
        "global_compression_ratio": None,
    }


def stored_config(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `quantization_config` of a `config.json`; None if there is none."""
    mlx = values.get("quantization")
    if isinstance(mlx, Mapping) and "group_size" in mlx:
        raise _unknown("method of MLX", f"{METHOD}, fp8 and bitsandbytes")
    found = values.get(KEY)
    if found is not None and not isinstance(found, Mapping):
        raise CheckpointError(f"{KEY} of config.json is {shown(found)}; it must be an object")
    return found or None


class Schemes:
    """What a `quantization_config` says of each layer. CheckpointError for what is not known."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        method = config.get("quant_method")
        self.kv = _kv(config.get("kv_cache_scheme"))
        self._groups: list[tuple[_Names, Scheme]] = []
        self._ignored = _Names((), Budget())
        self._by_tensors: tuple[Scheme, ...] = ()
        if method in (METHOD, OWN_METHOD):
            self._read_groups(Section(config, "config.json", KEY))
        elif method == "fp8":
            self._by_tensors = (_finegrained(config),)
        elif method == "bitsandbytes":
            self._by_tensors = (_bitsandbytes(Section(config, "config.json", KEY)),)
        else:
            raise _unknown(f"method {shown(method)}", f"{METHOD}, fp8 and bitsandbytes")

    def scheme(self, layer: str, tensors: frozenset[str], kind: str = LINEAR) -> Scheme | None:
        """The scheme of the layer called `layer` in the file; None if it is dense.

        `tensors` are the file's names: two of the methods tell by them which layers are meant.
        `kind` is the class by which targets may mean it.
        """
        for scheme in self._by_tensors:
            return scheme if _MARKS[scheme.layout].format(layer) in tensors else None
        if self._ignored.have(layer):
            return None
        for targets, scheme in self._groups:  # a layer's own name comes before its class
            if targets.have(layer):
                return scheme
        return next((scheme for targets, scheme in self._groups if kind in targets.exact), None)

    def _read_groups(self, config: Section) -> None:
        for key, empty in (("transform_config", "config_groups"), ("sparsity_config", "format")):
            given = config.section(key)
            if given.values and given.values.get(empty) not in _NOTHING:
                raise _unknown(f"{key} ({_told(given.values)})", "checkpoints without one")
        if not config.has("config_groups"):
            raise CheckpointError(f"{KEY} has no config_groups; download config.json again")
        groups, budget = config.section("config_groups"), Budget()
        if len(groups.values) > MAX_GROUPS:
            raise config.error("config_groups", groups.values, f"at most {MAX_GROUPS} groups")
        self._ignored = _Names(_names(config, "ignore"), budget)
        for name in groups.values:
            group = groups.section(name)
            layout = str(group.values.get("format") or config.values.get("format") or _MIXED)
            scheme = _scheme(group.values, layout)
            self._groups.append((_Names(_names(group, "targets"), budget), scheme))


_NOTHING: tuple[object, ...] = (
    {},
    [],
    None,
    "dense",
)  # what a transform or a sparsity says if there is none


class _Names:
    """Layers as a list of names and patterns means them. CheckpointError for bad patterns."""

    def __init__(self, names: Iterable[str], budget: Budget) -> None:
        names = tuple(names)
        self.exact = frozenset(name for name in names if not name.startswith(_REGEX))
        self._budget = budget
        self._patterns = []
        for name in names:
            if name.startswith(_REGEX):
                try:
                    self._patterns.append(Pattern(name.removeprefix(_REGEX)))
                except ValueError as error:
                    raise _bad_pattern(name, error) from None

    def have(self, layer: str) -> bool:
        return layer in self.exact or any(self._fits(each, layer) for each in self._patterns)

    def _fits(self, pattern: Pattern, layer: str) -> bool:
        try:
            return pattern.matches(layer, self._budget)
        except ValueError as error:
            raise _bad_pattern(f"{_REGEX}{pattern.source}", error) from None


_REGEX = "re:"


def _bad_pattern(name: str, error: ValueError) -> CheckpointError:
    return CheckpointError(
        f"config.json, section {KEY}, has the pattern {shown(name)}, which Quaver does not read: "
        f"{error}; name the layers instead"
    )


# The tensor that only a layer of this layout has.
_MARKS = {
    Layout.FINEGRAINED: "{}.weight_scale_inv",
    Layout.BITSANDBYTES8: "{}.SCB",
    Layout.BITSANDBYTES4: "{}.weight.absmax",
}


def _scheme(group: Mapping[str, Any], layout: str) -> Scheme:
    """The scheme of one group: the known one that it equals in all that matters."""
    given = (_essence(group.get("weights")), _inputs_essence(group.get("input_activations")))
    if group.get("output_activations") is None:
        for chosen, (ours, weights, inputs) in _WRITTEN.items():
            if given in _variants(_essence(weights), _inputs_essence(inputs)):
                plain = Layout.INTEGER if ours is Layout.PACKED else ours
                found = {_MIXED: ours, _NAIVE: plain}.get(layout, layout)
                if found == ours or {found, ours} == {Layout.INTEGER, Layout.PACKED}:
                    return Scheme(chosen, Layout(found), _group(group["weights"]))
    raise _unknown(
        f"scheme (format {shown(layout)}, weights {_told(group.get('weights'))}, inputs "
        f"{_told(group.get('input_activations'))})",
        "FP8, FP8_DYNAMIC, FP8_BLOCK, W8A8, W8A16 and W4A16, symmetric",
    )


Essence = tuple[Any, ...] | None


def _essence(args: object) -> Essence:
    if args is None:
        return None
    if not isinstance(args, Mapping):
        return ("not an object",)
    keys = ("type", "num_bits", "strategy", "symmetric", "block_structure")
    dynamic = _plain(args.get("dynamic")) or False
    ordered = _plain(args.get("actorder")) not in (None, False, "weight", "static")
    return (*(_plain(args.get(key)) for key in keys), dynamic, ordered)


def _plain(value: object) -> object:
    """Something that can be compared and hashed."""
    return value if isinstance(value, str | int | None) else str(value)


def _inputs_essence(args: object) -> Essence:
    """Inputs are computed with as they are told, so the size of their groups matters too."""
    found = _essence(args)
    if found is None or not isinstance(args, Mapping) or args.get("strategy") != "group":
        return found
    return (*found, _plain(args.get("group_size")))


def _variants(weights: Essence, inputs: Essence) -> set[tuple[Essence, Essence]]:
    """The same with one scale for a tensor, a row or a group, where a row is written."""
    assert weights is not None
    if weights[2] not in ("channel", "group"):
        return {(weights, inputs)}
    kinds = ("tensor", "channel", "group")
    return {((*weights[:2], kind, *weights[3:]), inputs) for kind in kinds}


def _kv(scheme: object) -> Format | None:
    """The format that a cache was calibrated for."""
    if scheme is None:
        return None
    if _essence(scheme) != _essence(_KV_FP8):
        raise _unknown(f"kv_cache_scheme ({_told(scheme)})", "fp8 with a scale a tensor")
    return Format.FP8


def _group(weights: Mapping[str, Any]) -> int | None:
    size = weights.get("group_size")
    if weights.get("strategy") != "group":
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_GROUP:
        raise _unknown(f"group_size {shown(size)}", "whole numbers above zero")
    return size


def _finegrained(config: Mapping[str, Any]) -> Scheme:
    block, activation = config.get("weight_block_size"), config.get("activation_scheme", "dynamic")
    if config.get("scale_fmt") not in (None, "float"):
        raise _unknown(f"scale_fmt {shown(config['scale_fmt'])} of method 'fp8'", "float")
    kinds = {
        ("dynamic", (128, 128)): Format.FP8_BLOCK,
        ("dynamic", None): Format.FP8,
        ("static", None): Format.FP8_STATIC,
    }
    key = (_plain(activation), (128, 128) if block == [128, 128] else _plain(block))
    if key not in kinds:
        raise _unknown(
            f"activation_scheme {shown(activation)} with weight_block_size {shown(block)} of "
            "method 'fp8'",
            "dynamic with [128, 128] or null, and static with null",
        )
    return Scheme(kinds[key], Layout.FINEGRAINED)


def _bitsandbytes(config: Section) -> Scheme:
    if config.flag("load_in_8bit", False):
        return Scheme(Format.INT8, Layout.BITSANDBYTES8)
    kind = config.values.get("bnb_4bit_quant_type", "fp4")
    if kind != "nf4":
        raise _unknown(f"bnb_4bit_quant_type {shown(kind)}", "nf4")
    return Scheme(Format.NF4, Layout.BITSANDBYTES4)


def _names(section: Section, key: str) -> tuple[str, ...]:
    value = section.values.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise section.error(key, value, "a list of names of layers")
    if len(value) > MAX_NAMES:
        raise section.error(key, value, f"a list of at most {MAX_NAMES:,} names")
    if long := [name for name in value if len(name) > MAX_NAME]:
        raise CheckpointError(f"{KEY} has a name of {len(long[0])} characters; is it the file?")
    return tuple(value)


def _told(args: object) -> str:
    if not isinstance(args, Mapping):
        return shown(args).lower()
    known = [(k, v) for k, v in args.items() if v is not None and k != "observer"]
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return ", ".join(f"{printable(str(k), 40)} {_value(v)}" for k, v in known[:12]) + more


def _value(value: object) -> str:
    return printable(value, 80) if isinstance(value, str) else shown(value)


def _unknown(what: str, allowed: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is quantised by a {what}, which Quaver does not read; it reads {allowed}. "
        "Take the original model instead, and quantise it with: quaver quantize"
    )
