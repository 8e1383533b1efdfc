"""What all quantised layers share: the maths in plain PyTorch, on any device.

A product dequantises the weight, rounds the input where the format has rounded inputs, and
multiplies in the dtype of the activations. That defines the result; a format that has something
faster for a device overrides `product`.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.core.errors import InputError
from quaver.nn.linear import Linear, Product
from quaver.nn.norm import RMSNorm
from quaver.nn.weight import Kept, Packing
from quaver.precision import Format, Role
from quaver.precision.devices import reads_packed
from quaver.precision.weight import QuantisedWeight, stack

FEW_ROWS = 16  # of inputs, for which reading a weight takes longer than multiplying by it
STRETCH = 8192  # rows quantised at a time: what that takes does not grow with a vocabulary
DTYPE = torch.bfloat16  # of activations, and of the scales that are made here


class QuantisedLinear(Product):
    """y = x W^T (+ b), with W [out, in] kept in fewer bits: stands in for `Linear`.

    Rows of W never share a scale in memory, so that any of them can be used alone.
    """

    format: ClassVar[Format]
    group: ClassVar[int | None] = None  # inputs that share a scale; None: a whole row
    packing: ClassVar[Packing] = Packing.NONE
    rounds_inputs: ClassVar[bool] = False
    least_sqnr: ClassVar[float] = 25.0  # dB; a layer that rounding costs more stays dense
    reads_on_cpu = False  # whether `product` reads the weight as it is kept, on a CPU too

    levels: Tensor | None  # what elements stand for, where they are indices

    def __init__(self, weight: QuantisedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("levels", None, persistent=False)
        self.out_features, self.in_features = weight.shape
        if self.packing is not Packing.NONE:  # unpacked once is faster for more
            self.most_fused_rows = FEW_ROWS
        self.weight, self.scale = kept(weight.elements), kept(weight.scale)
        self.input_scale = None if weight.input_scale is None else kept(weight.input_scale)
        self.bias = None if bias is None else kept(bias.to(DTYPE))

    @classmethod
    def from_linear(cls, linear: Linear) -> Self:
        """Quantise a loaded layer, whose weight must be finite. InputError if the shape does not
        fit, or if the format needs to be calibrated."""
        if cls.format.calibrated:
            raise InputError(
                f"{cls.format} needs scales of the inputs, which loading cannot know; make a "
                f"checkpoint by: quaver quantize MODEL OUT --recipe {cls.format}"
            )
        return cls(cls.quantise(linear.weight.detach()), linear.bias)

    @classmethod
    def quantise(cls, weight: Tensor) -> QuantisedWeight:
        """A weight [out, in] of any float dtype, rounded to the nearest of this format.

        Raises InputError for a shape that the format does not fit.
        """
        cls.check(weight.shape)
        return stack([cls.quantise_rows(rows) for rows in weight.split(STRETCH)])

    @classmethod
    def quantise_rows(cls, weight: Tensor) -> QuantisedWeight:
        """The same for some rows, of a shape that fits."""
        groups = weight.float().unflatten(-1, (-1, cls.group or weight.shape[-1]))
        elements, scale = cls.encode(groups)
        return QuantisedWeight(cls.format, elements, scale.squeeze(-1))

    @classmethod
    def check(cls, shape: torch.Size | tuple[int, ...]) -> None:
        """InputError unless a weight of `shape` [out, in] divides into groups."""
        if cls.group and shape[-1] % cls.group:
            raise InputError(
                f"{cls.format} keeps weights in groups of {cls.group} along the input, and "
                f"{shape[-1]} inputs do not divide into them; choose another format for these "
                "layers"
            )

    @classmethod
    @abstractmethod
    def encode(cls, groups: Tensor) -> tuple[Tensor, Tensor]:
        """fp32 [out, groups, inputs] -> elements as kept, and bf16 scales [out, groups, 1]."""

    @classmethod
    @abstractmethod
    def decode(cls, elements: Tensor) -> Tensor:
        """Elements as kept -> what they stand for before scaling, fp32 [out, in]."""

    @classmethod
    def dequantise(cls, elements: Tensor, scale: Tensor) -> Tensor:
        """What the weight has become, fp32 [out, in]."""
        values = cls.decode(elements)
        grouped = values.unflatten(-1, (scale.shape[-1], -1)) * scale.float()[..., None]
        return grouped.flatten(-2)

    @classmethod
    def round_input(cls, x: Tensor, scale: Tensor | None) -> Tensor:
        """x [..., in] as the format's products see it, in the dtype of x: rounded, if it rounds
        inputs. `scale` [] is that of a static format."""
        return x

    def as_linear(self, role: Role) -> Linear:
        """A dense layer that computes the same: nothing to unpack, and nothing saved."""
        linear = _Unpacked(self, role)
        linear.weight = kept(self.dequantised(0, self.out_features).to(DTYPE))
        linear.bias = self.bias
        return linear

    @property
    def dtype(self) -> torch.dtype:
        """What inputs must be in."""
        return DTYPE

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        y = self.product(x, start, stop)
        return y if self.bias is None else y + self.bias[start:stop]

    def drop_rows(self, count: int) -> None:
        """Forget the first `count` outputs."""
        self.out_features -= count
        self.weight = kept(self.weight[count:].clone())
        self.scale = kept(self.scale[count:].clone())
        self.bias = None if self.bias is None else kept(self.bias[count:].clone())

    def product(self, x: Tensor, start: int, stop: int) -> Tensor:
        """x [..., in] times rows start..stop-1 of the weight, transposed."""
        if x.dtype is DTYPE and x.numel() <= FEW_ROWS * self.in_features and self.has_kernel:
            # only builds of torch for GPUs bring Triton
            from quaver.nn.kernels.operands import Around
            from quaver.nn.kernels.skinny import skinny

            flat, _, rounds = self.prepared(x.reshape(-1, self.in_features), None)
            step = self.input_scale if rounds else None
            y = skinny(flat, self.kept(start, stop), Around(rounded=rounds, step=step))
            return y.view(*x.shape[:-1], stop - start)
        rounded = self.round_input(x, self.input_scale)
        if self.packing is not Packing.NONE and self.has_kernel:
            from quaver.nn.kernels.expand import expand

            return F.linear(rounded, expand(self.kept(start, stop), x.dtype))
        return F.linear(rounded, self.dequantised(start, stop).to(x.dtype))

    def prepared(self, x: Tensor, norm: RMSNorm | None) -> tuple[Tensor, RMSNorm | None, bool]:
        if not self.rounds_inputs:
            return x, norm, False
        return self.round_input(x if norm is None else norm(x), self.input_scale), None, False

    @property
    def has_kernel(self) -> bool:
        # inputs that share a scale must divide into what the kernel takes at a time
        groups = self.scale.shape[1]
        group = self.in_features // groups
        return (groups == 1 or group == 64 or group % 128 == 0) and has_kernel(
            self.format, self.weight.device
        )

    def kept(self, start: int, stop: int) -> Kept:
        return Kept(self.weight[start:stop], self.scale[start:stop], self.packing, self.levels)

    def dequantised(self, start: int, stop: int) -> Tensor:
        """Rows start..stop-1 of what the weight has become, fp32 [stop - start, in]."""
        return self.dequantise(self.weight[start:stop], self.scale[start:stop])


class _Unpacked(Linear):
    """A quantised layer's dense twin, which rounds its inputs as that does."""

    def __init__(self, layer: QuantisedLinear, role: Role) -> None:
        with torch.device("meta"):
            super().__init__(
                layer.in_features, layer.out_features, DTYPE, layer.bias is not None, role
            )
        self._kind = type(layer)  # not the layer, which would keep its weight
        self.input_scale = layer.input_scale

    def whole(self, x: Tensor) -> Tensor:
        return super().whole(self._kind.round_input(x, self.input_scale))

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        return super().rows(self._kind.round_input(x, self.input_scale), start, stop)


@cache
def has_kernel(chosen: Format, device: torch.device) -> bool:
    """Whether `device` has kernels for this format: `nn.kernels`, and fp8's of PyTorch."""
    if device.type != "cuda":
        return False
    return reads_packed(chosen, torch.cuda.get_device_capability(device))


def kept(value: Tensor) -> nn.Parameter:
    """A tensor as a weight that is not trained; it counts among the model's bytes."""
    return nn.Parameter(value, requires_grad=False)


def scales(groups: Tensor, largest: float) -> Tensor:
    """Scales [..., 1] in bf16 with which the last dimension's extremes become `largest`.

    They are rounded before anything is divided by them, so what is stored is what was used. Zeros,
    and numbers too small to have a scale, get the scale 1 and become zeros.
    """
    scale = groups.float().abs().amax(dim=-1, keepdim=True) / largest
    return torch.where(scale >= torch.finfo(DTYPE).tiny, scale, 1.0).to(DTYPE)
