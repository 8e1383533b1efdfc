"""Weights from a reader, through their formats, to a writer: one layer in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from quaver.checkpoints.load import is_finite
from quaver.checkpoints.packed import tensors
from quaver.checkpoints.reader import TensorReader
from quaver.core.errors import CheckpointError
from quaver.families.orpheus.weights import kv_scales
from quaver.precision import Format, Role
from quaver.precision.weight import QuantisedWeight
from quaver.quant.apply import LAYERS
from quaver.quant.gptq import gptq
from quaver.quantizing.plan import Plan
from quaver.quantizing.report import LayerReport, Progress, Report
from quaver.quantizing.speech import Watched

FP8_LARGEST = torch.finfo(torch.float8_e4m3fn).max
LEAST_LARGEST = 1e-12  # of what was seen: nothing but zeros gives no scale
EXACT = 200.0  # dB: no error to speak of
ROWS = 1024  # of a weight are compared at once, in fp32


class Converter:
    """Iterate `run` to the end; then `formats`, `layers` and `bytes` say what was made."""

    def __init__(
        self, plan: Plan, watched: Watched, device: torch.device, least_sqnr: float | None
    ) -> None:
        self._plan, self._watched = plan, watched
        self._device, self._least_sqnr = device, least_sqnr
        self.formats = dict(plan.formats)
        self.layers: list[LayerReport] = []
        self.bytes = 0

    def run(self, reader: TensorReader, total: int, report: Report) -> Iterator[tuple[str, Tensor]]:
        """All tensors of the new checkpoint; `total` are the old one's bytes."""
        done = 0
        for target, source in self._plan.sources.items():
            parts = [_read(reader, name) for name in source.names]
            done += sum(part.nbytes for part in parts)
            for name, tensor in self._convert(target, parts):
                self.bytes += tensor.nbytes
                yield name, tensor
            report(Progress("quantising", min(done, total), total))
        yield from self._kv_scales()

    def _convert(self, target: str, parts: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """One weight's tensors. Its parts get one format, since engines join them again."""
        layer, names = target.removesuffix(".weight"), self._plan.written[target]
        wanted = self.formats.get(layer)
        if (divisors := self._watched.divisors.get(layer)) is not None:
            parts = [p * divisors if wanted is not None else p.float() / divisors for p in parts]
        if wanted is not None and wanted.quantised:
            made = [self._quantised(layer, wanted, part) for part in parts]
            if self._accepts(layer, wanted, parts, made):
                for name, weight in zip(names, made, strict=True):
                    yield from tensors(name.removesuffix(".weight"), weight)
                return
            if names != self._plan.sources[target].names:
                return  # a head that stays dense stays tied
        chosen = self.formats.get(layer, self._plan.recipe.format(Role.BACKBONE))
        for name, part in zip(names, parts, strict=True):
            yield name, part.to(chosen.dtype)

    def _quantised(self, layer: str, chosen: Format, weight: Tensor) -> QuantisedWeight:
        seen = self._watched.seen.inputs.get(layer)
        weight = weight.to(self._device)
        if chosen is Format.INT4 and seen is not None and seen.products is not None:
            made = gptq(weight, seen.products)
        else:
            made = LAYERS[chosen].quantise(weight)
        input_scale = None
        if chosen.calibrated:
            assert seen is not None and seen.largest is not None, "such layers are watched"
            input_scale = (seen.largest.amax().clamp(min=LEAST_LARGEST) / FP8_LARGEST).cpu()
        return QuantisedWeight(chosen, made.elements.cpu(), made.scale.cpu(), input_scale)

    def _accepts(
        self, layer: str, wanted: Format, parts: list[Tensor], made: list[QuantisedWeight]
    ) -> bool:
        """Whether rounding left enough of a layer; notes what becomes of it."""
        sqnr = _sqnr(parts, made)
        least = LAYERS[wanted].least_sqnr if self._least_sqnr is None else self._least_sqnr
        accepted = sqnr >= least
        self.formats[layer] = wanted if accepted else Format.BF16
        size = sum(part.numel() for part in parts)
        self.layers.append(LayerReport(layer, wanted, self.formats[layer], sqnr, size))
        return accepted

    def _kv_scales(self) -> Iterator[tuple[str, Tensor]]:
        largest = self._watched.seen.kv_largest
        if largest is None or self._plan.kv is not Format.FP8:
            return
        scales = largest.clamp(min=LEAST_LARGEST).cpu() / FP8_LARGEST
        for names, pair in zip(kv_scales(self._plan.shape), scales, strict=True):
            yield from zip(names, pair.split(1), strict=True)


def _read(reader: TensorReader, name: str) -> Tensor:
    tensor = reader.read(name)
    if not is_finite(tensor):
        raise CheckpointError(
            f"{name} of {reader.path} has infinities or NaN; it cannot be rounded"
        )
    return tensor


def _sqnr(parts: Sequence[Tensor], made: Sequence[QuantisedWeight]) -> float:
    """Power of the weights over that of their errors, in dB, at most `EXACT`."""
    power = error = 0.0
    for part, weight in zip(parts, made, strict=True):
        pieces = (tensor.split(ROWS) for tensor in (part, weight.elements, weight.scale))
        for rows, elements, scale in zip(*pieces, strict=True):
            wide = rows.float()
            back = LAYERS[weight.format].dequantise(elements, scale)
            power += float(wide.square().sum(dtype=torch.float64))
            error += float((back - wide).square().sum(dtype=torch.float64))
    return min(EXACT, 10 * math.log10(power / error)) if error and power else EXACT
