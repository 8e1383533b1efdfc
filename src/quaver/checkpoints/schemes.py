"""`quantization_config` of a `config.json`: which layer is kept how, read and written.

Written is the layout of compressed-tensors (https://github.com/vllm-project/compressed-tensors).
Two formats that it lacks, fp8-e5m2 and nf4, are written in its manner under a method of our own, so
that others refuse them by name. Read are that, Hugging Face's `fp8` and bitsandbytes. A scheme that
is not known is an error that names it: weights misread still speak, only worse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from quaver.core.errors import CheckpointError
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
MAX_PATTERN = 300  # characters of a target
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
    found = values.get(KEY)
    if found is not None and not isinstance(found, Mapping):
        raise CheckpointError(f"{KEY} of config.json is {_told(found)}; it must be an object")
    return found


class Schemes:
    """What a `quantization_config` says of each layer. CheckpointError for what is not known."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        method = config.get("quant_method")
        self.kv = _kv(config.get("kv_cache_scheme"))
        self._groups: list[tuple[tuple[str, ...], Scheme]] = []
        self._ignored: tuple[str, ...] = ()
        self._by_tensors: tuple[Scheme, ...] = ()
        if method in (METHOD, OWN_METHOD):
            self._read_groups(config)
        elif method == "fp8":
            self._by_tensors = (_finegrained(config),)
        elif method == "bitsandbytes":
            self._by_tensors = (_bitsandbytes(config),)
        else:
            raise _unknown(f"method {method!r}", f"{METHOD}, fp8 and bitsandbytes")

    def scheme(self, layer: str, tensors: frozenset[str], kind: str = LINEAR) -> Scheme | None:
        """The scheme of the layer called `layer` in the file; None if it is dense.

        `tensors` are the file's names: two of the methods tell by them which layers are meant.
        `kind` is the class by which targets may mean it.
        """
        for scheme in self._by_tensors:
            return scheme if _MARKS[scheme.layout].format(layer) in tensors else None
        if any(_is_called(layer, pattern) for pattern in self._ignored):
            return None
        for targets, scheme in self._groups:  # a layer's own name comes before its class
            if any(_is_called(layer, target) for target in targets):
                return scheme
        return next((scheme for targets, scheme in self._groups if kind in targets), None)

    def _read_groups(self, config: Mapping[str, Any]) -> None:
        for key in ("transform_config", "sparsity_config"):
            if config.get(key):
                raise _unknown(f"{key} ({_told(config[key])})", "checkpoints without one")
        groups = config.get("config_groups")
        if not isinstance(groups, Mapping) or not all(
            isinstance(g, Mapping) for g in groups.values()
        ):
            raise CheckpointError(f"{KEY} has no config_groups; download config.json again")
        self._ignored = _names(config.get("ignore") or [])
        for group in groups.values():
            targets = _names(group.get("targets") or [])
            layout = str(group.get("format") or config.get("format") or _MIXED)
            self._groups.append((targets, _scheme(group, layout)))


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
        f"scheme (format {layout!r}, weights {_told(group.get('weights'))}, inputs "
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
    if not isinstance(size, int) or size < 1:
        raise _unknown(f"group_size {size!r}", "whole numbers above zero")
    return size


def _finegrained(config: Mapping[str, Any]) -> Scheme:
    block, activation = config.get("weight_block_size"), config.get("activation_scheme", "dynamic")
    if config.get("scale_fmt") not in (None, "float"):
        raise _unknown(f"scale_fmt {config['scale_fmt']!r} of method 'fp8'", "float")
    kinds = {
        ("dynamic", (128, 128)): Format.FP8_BLOCK,
        ("dynamic", None): Format.FP8,
        ("static", None): Format.FP8_STATIC,
    }
    key = (_plain(activation), (128, 128) if block == [128, 128] else _plain(block))
    if key not in kinds:
        raise _unknown(
            f"activation_scheme {activation!r} with weight_block_size {block!r} of method 'fp8'",
            "dynamic with [128, 128] or null, and static with null",
        )
    return Scheme(kinds[key], Layout.FINEGRAINED)


def _bitsandbytes(config: Mapping[str, Any]) -> Scheme:
    if config.get("load_in_8bit"):
        return Scheme(Format.INT8, Layout.BITSANDBYTES8)
    kind = config.get("bnb_4bit_quant_type", "fp4")
    if kind != "nf4":
        raise _unknown(f"bnb_4bit_quant_type {kind!r}", "nf4")
    return Scheme(Format.NF4, Layout.BITSANDBYTES4)


def _is_called(layer: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern.removeprefix("re:"), layer) is not None
        except (re.error, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{KEY} has the pattern {pattern!r}: {error}") from None
    return pattern == layer


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"{KEY} has {value!r} where names belong; download it again")
    if long := [name for name in value if len(name) > MAX_PATTERN]:
        raise CheckpointError(f"{KEY} has a name of {len(long[0])} characters; is it the file?")
    return tuple(value)


def _told(args: object) -> str:
    if not isinstance(args, Mapping):
        return str(args).lower()
    return ", ".join(
        f"{key} {value}" for key, value in args.items() if value is not None and key != "observer"
    )


def _unknown(what: str, allowed: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is quantised by a {what}, which Quaver does not read; it reads {allowed}. "
        "Take the original model instead, and quantise it with: quaver quantize"
    )
