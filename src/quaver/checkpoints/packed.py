"""Quantised layers in a file: their tensors to `QuantisedWeight`s and back.

One function a layout. All of them check names, dtypes, shapes and that numbers are finite before
anything is computed with them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from quaver.checkpoints.reader import TensorReader
from quaver.checkpoints.schemes import LINEAR, TABLE, Layout, Scheme, Schemes
from quaver.core.errors import CheckpointError
from quaver.precision import Format
from quaver.precision.weight import BLOCK, QuantisedWeight

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_STATE = "quant_state.bitsandbytes__nf4"  # of bitsandbytes: JSON, as bytes


class QuantisedReader(TensorReader):
    """A quantised checkpoint that looks like a dense one, and gives weights as they are too.

    `layers` are the names of its linear layers, `table` that of its table of tokens. `read` gives a
    quantised one's weight in fp32, by `dequantise`; `packed` as it is kept.
    """

    def __init__(
        self,
        inner: TensorReader,
        layers: Iterable[str],
        schemes: Schemes,
        dequantise: Callable[[QuantisedWeight], Tensor],
        table: str | None = None,
    ) -> None:
        super().__init__(inner.path)
        self._inner, self._dequantise = inner, dequantise
        self.kv = schemes.kv  # the format that a cache was calibrated for
        self._schemes: dict[str, Scheme] = {}  # by the name of the dense weight
        names = set(inner.names())
        kinds = dict.fromkeys(layers, LINEAR) | ({table: TABLE} if table else {})
        for layer, kind in kinds.items():
            if scheme := schemes.scheme(layer, inner.names(), kind):
                self._schemes[f"{layer}.weight"] = scheme
                names -= {f"{layer}.{suffix}" for suffix in _SUFFIXES[scheme.layout]}
        # what is left of a quantised layer, such as zero points, has no place in its scheme
        self._names = frozenset(names) | self._schemes.keys()

    def format(self, name: str) -> Format | None:
        """The format of the weight `name`; None if it is dense."""
        scheme = self._schemes.get(name)
        return None if scheme is None else scheme.format

    def packed(self, name: str) -> QuantisedWeight:
        """A quantised weight as it is kept."""
        scheme = self._schemes[name]
        return _READERS[scheme.layout](_Layer(self._inner, name.removesuffix(".weight")), scheme)

    def names(self) -> frozenset[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._schemes:
            return self._inner.shape(name)
        layer = _Layer(self._inner, name.removesuffix(".weight"))
        return layer.logical_shape(self._schemes[name].layout)

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32 if name in self._schemes else self._inner.dtype(name)

    def read(self, name: str) -> Tensor:
        if name not in self._schemes:
            return self._inner.read(name)
        return self._dequantise(self.packed(name))

    def close(self) -> None:
        self._inner.close()


def tensors(layer: str, weight: QuantisedWeight) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a layer as `schemes.quantization_config` says that it is written."""
    rows, columns = weight.shape
    scale = weight.scale
    if weight.format is Format.FP8_BLOCK:
        scale = scale[::BLOCK]  # the rows of a block have the same
    match weight.format:
        case Format.INT8:
            # to unsigned: plus 128, which flips the first bit
            words = (weight.elements.view(torch.uint8) ^ 128).contiguous()
            yield f"{layer}.weight_packed", _words(words)
        case Format.INT4:
            yield f"{layer}.weight_packed", _words(weight.elements)
        case Format.NF4:
            yield f"{layer}.weight_packed", weight.elements
        case _:
            yield f"{layer}.weight", weight.elements
    yield f"{layer}.weight_scale", scale
    if weight.format in (Format.INT8, Format.INT4):
        yield f"{layer}.weight_shape", torch.tensor([rows, columns])
    if weight.input_scale is not None:
        yield f"{layer}.input_scale", weight.input_scale.to(scale.dtype).reshape(1)


def _words(packed: Tensor) -> Tensor:
    """uint8 [out, bytes] -> int32 [out, words], little-endian, the last word filled up."""
    padding = -packed.shape[1] % 4
    return torch.nn.functional.pad(packed, (0, padding)).view(torch.int32)


@dataclass(frozen=True, slots=True)
class _State:
    """Shape of a weight, how many numbers share a scale, and of scales that are quantised too how
    many share one, and what they are counted from."""

    shape: tuple[int, int]
    group: int
    nested_group: int
    offset: float


class _Layer:
    """The tensors of one layer, each checked when it is read."""

    def __init__(self, reader: TensorReader, name: str) -> None:
        self._reader, self._name = reader, name

    def has(self, suffix: str) -> bool:
        return f"{self._name}.{suffix}" in self._reader.names()

    def read(self, suffix: str, *dtypes: torch.dtype) -> Tensor:
        name = f"{self._name}.{suffix}"
        if not self.has(suffix):
            raise self.error(f"{name} is missing")
        tensor = self._reader.read(name)
        if tensor.dtype not in dtypes:
            allowed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise self.error(f"{name} is {str(tensor.dtype)[6:]}, expected {allowed}")
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise self.error(f"{name} has infinities or NaN")
        # the file may be replaced while it is mapped
        return tensor.clone(memory_format=torch.contiguous_format)

    def matrix(self, suffix: str, dtype: torch.dtype) -> Tensor:
        """A tensor of two dimensions, neither of them zero."""
        self._matrix(suffix)
        return self.read(suffix, dtype)

    def scale(self, suffix: str, rows: int, group: int | None = None) -> Tensor:
        """Scales [rows, groups], from one for all, one a row, one a group, or one a block."""
        scale = self.read(suffix, *FLOATS)
        if scale.numel() == 1:
            return scale.reshape(1, 1).repeat(rows, 1)
        if group is not None and scale.dim() == 2 and scale.shape[0] == -(-rows // group):
            return scale.repeat_interleave(group, dim=0)[:rows]
        if scale.dim() == 1:
            scale = scale[:, None]
        if scale.dim() != 2 or scale.shape[0] != rows:
            raise self.error(f"{self._name}.{suffix} is {list(scale.shape)} for {rows} rows")
        return scale

    def logical_shape(self, layout: Layout) -> tuple[int, ...]:
        """[out, in] of the dense weight, from headers alone where that is possible."""
        if layout is Layout.PACKED:
            shape = self.read("weight_shape", torch.int64, torch.int32)
            if shape.shape != (2,) or bool((shape <= 0).any()):
                raise self.error(f"{self._name}.weight_shape is {shape.tolist()}")
            return tuple(shape.tolist())
        if layout is Layout.NF4:
            rows, half = self._matrix("weight_packed")
            return rows, 2 * half
        if layout is Layout.BITSANDBYTES4:
            return self.state().shape
        return self._matrix("weight")

    def state(self) -> _State:
        """What bitsandbytes says of a 4-bit weight."""
        data = self.read(f"weight.{_STATE}", torch.uint8)
        try:
            state = json.loads(bytes(data[: 2**16].tolist()))
            rows, columns = map(int, state["shape"])
            nested = int(state.get("nested_blocksize", 256))
            offset = float(state.get("nested_offset", 0.0))
            found = _State((rows, columns), int(state["blocksize"]), nested, offset)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise self.error(f"{self._name}.weight.{_STATE} is damaged ({error!r})") from None
        if min(rows, columns, found.group, nested) < 1 or not math.isfinite(offset):
            raise self.error(f"{self._name}.weight.{_STATE} says {found}")
        return found

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._reader.path} is not what its config.json says: {what}; download both again"
        )

    def _matrix(self, suffix: str) -> tuple[int, int]:
        name = f"{self._name}.{suffix}"
        if not self.has(suffix):
            raise self.error(f"{name} is missing")
        shape = self._reader.shape(name)
        if len(shape) != 2 or 0 in shape:
            raise self.error(f"{name} is {list(shape)}, expected a matrix")
        return shape[0], shape[1]


def _read_plain(layer: _Layer, scheme: Scheme) -> QuantisedWeight:
    """`weight` float8 or int8, `weight_scale`, and `input_scale` of static formats."""
    kind = {
        Format.INT8: torch.int8,
        Format.INT8_DYNAMIC: torch.int8,
        Format.FP8_E5M2: torch.float8_e5m2,
    }.get(scheme.format, torch.float8_e4m3fn)
    elements = layer.matrix("weight", kind)
    block = BLOCK if scheme.format is Format.FP8_BLOCK else None
    scale = layer.scale("weight_scale", len(elements), block)
    _check_groups(layer, scale, elements.shape[1], block or scheme.group)
    return QuantisedWeight(
        scheme.format, elements, scale, _input_scale(layer, scheme, "input_scale")
    )


def _read_packed(layer: _Layer, scheme: Scheme) -> QuantisedWeight:
    """`weight_packed` int32 with the first number in the lowest bits, each plus half its range."""
    rows, columns = layer.logical_shape(Layout.PACKED)
    words = layer.matrix("weight_packed", torch.int32)
    bits = 4 if scheme.format is Format.INT4 else 8
    if words.shape != (rows, -(-columns * bits // 32)):
        raise layer.error(f"weight_packed {list(words.shape)} does not hold {rows} x {columns}")
    elements = words.view(torch.uint8)[:, : columns * bits // 8]
    if bits == 8:
        elements = (elements ^ 128).view(torch.int8)
    scale = layer.scale("weight_scale", rows)
    _check_groups(layer, scale, columns, scheme.group)
    return QuantisedWeight(scheme.format, elements.contiguous(), scale)


def _read_nf4(layer: _Layer, scheme: Scheme) -> QuantisedWeight:
    elements = layer.matrix("weight_packed", torch.uint8)
    scale = layer.scale("weight_scale", len(elements))
    _check_groups(layer, scale, 2 * elements.shape[1], scheme.group)
    return QuantisedWeight(scheme.format, elements, scale)


def _read_finegrained(layer: _Layer, scheme: Scheme) -> QuantisedWeight:
    """Hugging Face's `fp8`: `weight_scale_inv` is what a weight is multiplied with."""
    elements = layer.matrix("weight", torch.float8_e4m3fn)
    block = BLOCK if scheme.format is Format.FP8_BLOCK else None
    scale = layer.scale("weight_scale_inv", len(elements), block)
    _check_groups(layer, scale, elements.shape[1], block)
    return QuantisedWeight(
        scheme.format, elements, scale, _input_scale(layer, scheme, "activation_scale")
    )


def _read_bitsandbytes8(layer: _Layer, scheme: Scheme) -> QuantisedWeight:
    """LLM.int8's weights: `SCB` is the largest of each row. Its outlier inputs, which stay in
    fp16 there, are a matter of how it computes, not of what it keeps."""
    if layer.has("weight_format") and bool(layer.read("weight_format", torch.uint8).any()):
        raise layer.error("the weight is not laid out by rows")
    elements = layer.matrix("weight", torch.int8)
    largest = layer.scale("SCB", len(elements))
    _check_groups(layer, largest, elements.shape[1], None)
    return QuantisedWeight(scheme.format, elements, largest.float() / 127)


def _read_bitsandbytes4(layer: _Layer, scheme: Scheme) -> QuantisedWeight:
    """QLoRA's weights: their scales may be quantised too, to a table, 256 of them a scale."""
    state = layer.state()
    (rows, columns), group = state.shape, state.group
    scale = layer.read("weight.absmax", torch.uint8, *FLOATS).flatten()
    if scale.dtype is torch.uint8:
        table = layer.read("weight.nested_quant_map", *FLOATS)
        nested = layer.read("weight.nested_absmax", *FLOATS)
        place = torch.arange(len(scale)) // state.nested_group
        if len(table) != 256 or int(place[-1]) >= len(nested):
            raise layer.error("the scales of its scales do not fit them")
        scale = table[scale.long()] * nested[place] + state.offset
    elements = layer.read("weight", torch.uint8)
    whole = group > 0 and columns % group == 0 and columns % 2 == 0
    if not whole or not elements.numel() * 2 == rows * columns == scale.numel() * group:
        raise layer.error(f"4-bit weights {list(elements.shape)} do not hold {rows} x {columns}")
    return QuantisedWeight(
        scheme.format, elements.view(rows, columns // 2), scale.view(rows, columns // group)
    )


def _input_scale(layer: _Layer, scheme: Scheme, suffix: str) -> Tensor | None:
    if scheme.format is not Format.FP8_STATIC:
        return None
    scale = layer.read(suffix, *FLOATS)
    if scale.numel() != 1 or float(scale) <= 0:
        raise layer.error(f"{suffix} must be one positive number")
    return scale.float().reshape(())


def _check_groups(layer: _Layer, scale: Tensor, columns: int, group: int | None) -> None:
    """One scale a row, or one for each `group` inputs."""
    wanted = 1 if group is None else columns / group
    if scale.shape[1] != wanted:
        each = "a row" if group is None else f"for {group} of {columns} inputs"
        raise layer.error(f"it has {scale.shape[1]} scales a row where there is one {each}")


_READERS: MappingProxyType[Layout, Callable[[_Layer, Scheme], QuantisedWeight]] = MappingProxyType(
    {
        Layout.FLOAT: _read_plain,
        Layout.INTEGER: _read_plain,
        Layout.PACKED: _read_packed,
        Layout.NF4: _read_nf4,
        Layout.FINEGRAINED: _read_finegrained,
        Layout.BITSANDBYTES8: _read_bitsandbytes8,
        Layout.BITSANDBYTES4: _read_bitsandbytes4,
    }
)
_SUFFIXES = MappingProxyType(
    {
        Layout.FLOAT: ("weight", "weight_scale", "input_scale"),
        Layout.INTEGER: ("weight", "weight_scale"),
        Layout.PACKED: ("weight_packed", "weight_scale", "weight_shape"),
        Layout.NF4: ("weight_packed", "weight_scale"),
        Layout.FINEGRAINED: ("weight", "weight_scale_inv", "activation_scale"),
        Layout.BITSANDBYTES8: ("weight", "SCB", "weight_format"),
        Layout.BITSANDBYTES4: (
            "weight",
            "weight.absmax",
            "weight.quant_map",
            "weight.nested_absmax",
            "weight.nested_quant_map",
            f"weight.{_STATE}",
        ),
    }
)
