"""How keys and values are kept: dense, as eight-bit floats, or as whole numbers with scales.

What these classes compute defines the result; `kernels/` does the same on GPUs, where attention
reads what is kept. fp8 has one scale a layer for keys and one for values, which calibration finds;
int8 has one a head and position, found as they come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from quaver.core.errors import InputError
from quaver.precision import Format

KEYS, VALUES = 0, 1
# E4M3's scale where nobody calibrated: keys of Llama-like models stay below 50, and 448 / 8 is 56.
UNCALIBRATED = {torch.float8_e4m3fn: 0.125, torch.float8_e5m2: 1.0}


class Keeping(ABC):
    """Encodes what is written to a cache and decodes what is read."""

    storage: torch.dtype  # of the cache's tensor
    kind: torch.dtype  # of its elements
    has_steps = False  # whether each head and position has a step of its own beside it

    @abstractmethod
    def encode(self, x: Tensor, layer: int, part: int) -> tuple[Tensor, Tensor | None]:
        """Keys or values [..., d] of a layer -> elements [..., d], and steps [...] if it has."""

    def scales(self, layer: int) -> tuple[float, float]:
        """What all keys and all values of a layer are multiplied by."""
        return 1.0, 1.0

    @abstractmethod
    def decode(self, elements: Tensor, steps: Tensor | None, layer: int, part: int) -> Tensor:
        """The inverse, [..., d], for attention."""


class DenseKeeping(Keeping):
    """As they are, in some dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.storage = self.kind = dtype

    def encode(self, x: Tensor, layer: int, part: int) -> tuple[Tensor, Tensor | None]:
        return x.to(self.storage), None

    def decode(self, elements: Tensor, steps: Tensor | None, layer: int, part: int) -> Tensor:
        return elements


class FloatKeeping(Keeping):
    """float8; `scales` [layers, 2] are of keys and of values."""

    storage = torch.uint8  # torch cannot write float8 by index

    def __init__(self, kind: torch.dtype, layers: int, scales: Tensor | None) -> None:
        self.kind = kind
        self._largest = torch.finfo(kind).max
        default = [(UNCALIBRATED[kind],) * 2] * layers
        # numbers, not tensors: multiplying by them needs no copy to the device
        self._scales: list[tuple[float, float]] = (
            default if scales is None else [(float(k), float(v)) for k, v in scales]
        )

    def scales(self, layer: int) -> tuple[float, float]:
        return self._scales[layer]

    def encode(self, x: Tensor, layer: int, part: int) -> tuple[Tensor, Tensor | None]:
        scaled = x.float() * (1 / self._scales[layer][part])
        return scaled.clamp(-self._largest, self._largest).to(self.kind).view(torch.uint8), None

    def decode(self, elements: Tensor, steps: Tensor | None, layer: int, part: int) -> Tensor:
        return elements.view(self.kind).to(torch.bfloat16) * self._scales[layer][part]


class IntegerKeeping(Keeping):
    """int8 with a step in bf16 for each head and position."""

    storage = kind = torch.int8
    has_steps = True

    def encode(self, x: Tensor, layer: int, part: int) -> tuple[Tensor, Tensor | None]:
        wide = x.float()
        step = (wide.abs().amax(dim=-1) * (1 / 127)).to(torch.bfloat16)
        step = step.clamp(min=torch.finfo(torch.bfloat16).tiny)
        whole = (wide / step.float()[..., None]).round().clamp(-127, 127)
        return whole.to(torch.int8), step

    def decode(self, elements: Tensor, steps: Tensor | None, layer: int, part: int) -> Tensor:
        assert steps is not None, "a cache of whole numbers has steps"
        return elements.to(torch.bfloat16) * steps[..., None]


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """One layer of a cache, as kernels read it."""

    keys: Tensor  # elements [slots, kv_heads, max_length, d]
    values: Tensor  # the same; in memory positions are side by side, not numbers of one
    key_steps: Tensor | None  # [slots, kv_heads, max_length], where there are any
    value_steps: Tensor | None
    key_scale: float
    value_scale: float
    lengths: Tensor  # [slots]: where the next key and value go


def keeping(chosen: Format, layers: int, scales: Tensor | None = None) -> Keeping:
    """How `chosen` keeps keys and values; `scales` [layers, 2] are what calibration found."""
    if not chosen.quantised:
        return DenseKeeping(chosen.dtype)
    match chosen:
        case Format.FP8:
            return FloatKeeping(torch.float8_e4m3fn, layers, scales)
        case Format.FP8_E5M2:
            return FloatKeeping(torch.float8_e5m2, layers, None)
        case Format.INT8:
            return IntegerKeeping()
    raise InputError(f"keys and values cannot be kept as {chosen}")
