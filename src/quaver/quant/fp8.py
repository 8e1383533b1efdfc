"""The fp8 formats: weights as eight-bit floats, inputs rounded to E4M3 in three of them.

E4M3 has three bits of mantissa and reaches 448; E5M2 two, and 57,344 (Micikevicius et al., 2022).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from quaver.nn.norm import RMSNorm
from quaver.precision import Format
from quaver.precision.weight import BLOCK, QuantisedWeight
from quaver.quant.layer import DTYPE, FEW_ROWS, QuantisedLinear, has_kernel, scales

E4M3 = torch.float8_e4m3fn


class Fp8WeightLinear(QuantisedLinear):
    """`weight` float8 [out, in], `scale` bf16 [out, 1]."""

    format = Format.FP8_WEIGHT
    kind: ClassVar[torch.dtype] = E4M3

    @classmethod
    def encode(cls, groups: Tensor) -> tuple[Tensor, Tensor]:
        scale = scales(groups, torch.finfo(cls.kind).max)
        # a rounded scale is at most 2^-9 too small, and what is that much too large rounds back
        return (groups / scale.float()).to(cls.kind).flatten(1), scale

    @classmethod
    def decode(cls, elements: Tensor) -> Tensor:
        return elements.float()


class Fp8E5M2Linear(Fp8WeightLinear):
    """The same with a wider range and a coarser step."""

    format = Format.FP8_E5M2
    kind: ClassVar[torch.dtype] = torch.float8_e5m2
    least_sqnr = 19.0


class Fp8Linear(Fp8WeightLinear):
    """Each token's inputs get a scale when they come."""

    format = Format.FP8
    rounds_inputs = True
    _wide: Tensor | None = None  # scales in fp32, where kernels need them at every step

    def fuse(self) -> None:
        super().fuse()
        self._wide = self.scale.float() if self.fused else None

    @classmethod
    def round_input(cls, x: Tensor, scale: Tensor | None) -> Tensor:
        step = cls.input_step(x, scale)
        return (_elements(x, step).float() * step).to(x.dtype)

    @classmethod
    def input_step(cls, x: Tensor, scale: Tensor | None) -> Tensor:
        """fp32 scales of inputs, [..., 1] or []."""
        return _scale_of(x)

    def prepared(self, x: Tensor, norm: RMSNorm | None) -> tuple[Tensor, RMSNorm | None, bool]:
        return x, norm, True  # a kernel does both

    def product(self, x: Tensor, start: int, stop: int) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        if len(flat) <= FEW_ROWS or not self._multiplies(x, stop - start):
            return super().product(x, start, stop)
        step = self.input_step(flat, self.input_scale)
        y = self._multiply(_elements(flat, step), step.expand(len(flat), 1), start, stop)
        return y.view(*x.shape[:-1], stop - start)

    def _many(self, x: Tensor, norm: RMSNorm | None, start: int, stop: int) -> Tensor:
        if not self._multiplies(x, stop - start):
            return super()._many(x, norm, start, stop)
        # only builds of torch for GPUs bring Triton
        from quaver.nn.kernels.digits import ROUNDED
        from quaver.nn.kernels.inputs import prepare

        flat = x.reshape(-1, self.in_features)
        weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
        elements, step = prepare(flat, weight, eps, ROUNDED, False, self.input_scale)
        assert step is not None, "a digit has a worth"
        return self._multiply(elements, step, start, stop).view(*x.shape[:-1], stop - start)

    def _multiply(self, elements: Tensor, step: Tensor, start: int, stop: int) -> Tensor:
        """Inputs in E4M3 [rows, in], in steps of [rows, 1], times rows start..stop-1."""
        scale = self.scale.float() if self._wide is None else self._wide
        return torch._scaled_mm(
            elements,
            self.weight[start:stop].t(),
            scale_a=step.contiguous(),
            scale_b=scale[start:stop].view(1, -1),
            out_dtype=DTYPE,
            # as kernels of few rows add up; sums that leave the tensor cores often take longer
            use_fast_accum=True,
        )

    def _multiplies(self, x: Tensor, columns: int) -> bool:
        """Whether the device multiplies fp8 with a scale a row, in this shape."""
        fits = self.in_features % 16 == columns % 16 == 0 and self.scale.shape[1] == 1
        return fits and x.dtype is DTYPE and has_kernel(self.format, x.device)


class Fp8StaticLinear(Fp8Linear):
    """All inputs have one scale, found beforehand; what is beyond it is cut."""

    format = Format.FP8_STATIC

    @classmethod
    def input_step(cls, x: Tensor, scale: Tensor | None) -> Tensor:
        assert scale is not None, "a static layer is only made with a scale"
        return scale


class Fp8BlockLinear(Fp8WeightLinear):
    """Blocks of 128 x 128 weights have a scale, and so have 128 inputs of a token.

    In memory each row has its own copy of the scales, [out, in / 128].
    """

    format = Format.FP8_BLOCK
    group = BLOCK
    rounds_inputs = True

    @classmethod
    def quantise_rows(cls, weight: Tensor) -> QuantisedWeight:
        rows, columns = weight.shape
        blocks = weight.float().view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        blocks = blocks.transpose(1, 2).reshape(rows // BLOCK, -1, BLOCK * BLOCK)
        elements, scale = cls.encode(blocks)
        elements = elements.view(rows // BLOCK, columns // BLOCK, BLOCK, BLOCK).transpose(1, 2)
        return QuantisedWeight(
            cls.format,
            elements.reshape(rows, columns),
            scale.squeeze(-1).repeat_interleave(BLOCK, dim=0),
        )

    @classmethod
    def check(cls, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        super().check(shape[::-1])

    @classmethod
    def round_input(cls, x: Tensor, scale: Tensor | None) -> Tensor:
        groups = x.unflatten(-1, (-1, BLOCK))
        step = _scale_of(groups)
        return (_elements(groups, step).float() * step).to(x.dtype).flatten(-2)


def _scale_of(x: Tensor) -> Tensor:
    """Scales [..., 1], fp32, with which the last dimension just fits E4M3."""
    largest = x.float().abs().amax(dim=-1, keepdim=True)
    # by a tensor: CUDA would multiply by one over a number, and round otherwise than a CPU
    most = largest.new_full((), torch.finfo(E4M3).max)
    return largest.clamp(min=torch.finfo(torch.float32).tiny * 448) / most


def _elements(x: Tensor, scale: Tensor) -> Tensor:
    largest = torch.finfo(E4M3).max
    return (x.float() / scale).clamp(-largest, largest).to(E4M3)
