"""One-dimensional convolutions that run one-shot or as a stream, with the same result.

One-shot, a layer pads its input with zeros on both sides. As a stream it keeps the inputs that
later outputs still need and gives out each sample once all its inputs are there; the padding is
then zeros before the first input and after the last. Chunk sizes cannot matter, because no output
is ever computed from anything but its own inputs: nothing is cross-faded, nothing decoded twice.

A layer's stream state lives in a `StreamState` that the caller owns, keyed by the layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(slots=True)
class StreamState:
    """What the layers of one stream remember between chunks.

    Tensors are replaced, never written in place, so a shallow copy is a snapshot.
    """

    kept: dict[int, Tensor] = field(default_factory=dict)  # inputs still needed, by layer
    moved: dict[int, int] = field(default_factory=dict)  # samples gone through, by layer
    last: bool = False  # this chunk is the stream's last

    def snapshot(self) -> StreamState:
        return StreamState(dict(self.kept), dict(self.moved), self.last)

    def window(self, layer: nn.Module, x: Tensor, padding: int, context: int) -> Tensor:
        """Kept inputs, then x [n, channels, t]; zeros before the first input and after the last.

        The last `context` inputs are kept for the next chunk.
        """
        zeros = x.new_zeros(*x.shape[:2], padding)
        window = torch.cat(
            (self.kept.pop(id(layer), zeros), x, *((zeros,) if self.last else ())), dim=-1
        )
        self.kept[id(layer)] = window[..., max(window.shape[-1] - context, 0) :]
        return window

    def move(self, layer: nn.Module, samples: int) -> int:
        """Count samples through a layer; returns how many had gone before."""
        before = self.moved.get(id(layer), 0)
        self.moved[id(layer)] = before + samples
        return before


class Snake(nn.Module):
    """x + sin(a x)^2 / a with a learned a per channel (Ziyin et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor, stream: StreamState | None = None) -> Tensor:
        wave = torch.sin(self.alpha * x)
        return torch.addcmul(x, wave, wave * (1 / (self.alpha + 1e-9)))


class Conv1d(nn.Module):
    """Length-preserving convolution with an odd kernel; a strided one is for one-shot use only."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = stride // 2 if stride > 1 else (kernel - 1) * dilation // 2
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None

    def forward(self, x: Tensor, stream: StreamState | None = None) -> Tensor:
        """x [n, in, t] -> [n, out, t / stride]."""
        if stream is None or self.padding == 0:
            return self.convolve(x, self.padding)
        return self.convolve(stream.window(self, x, self.padding, 2 * self.padding), 0)

    def convolve(self, x: Tensor, padding: int) -> Tensor:
        """The bare convolution; an input too short for one output gives none."""
        if x.shape[-1] + 2 * padding <= (self.weight.shape[-1] - 1) * self.dilation:
            return x.new_zeros(x.shape[0], self.weight.shape[0], 0)
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose1d(nn.Module):
    """Upsampling by an even stride with a kernel of twice the stride: output t depends on the
    inputs of its own block and the one before, half a block shifted."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 2 * stride))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, x: Tensor, stream: StreamState | None = None) -> Tensor:
        """x [n, in, t] -> [n, out, t * stride]."""
        half = self.stride // 2
        if stream is None:
            return F.conv_transpose1d(x, self.weight, self.bias, self.stride, half)
        window = stream.window(self, x, 1, 1)
        count = window.shape[-1] - 1  # whole blocks: each needs its input and the one before
        if count == 0:
            return x.new_zeros(x.shape[0], self.weight.shape[1], 0)
        y = F.conv_transpose1d(window, self.weight, self.bias, self.stride)
        y = y[..., self.stride : (count + 1) * self.stride]
        start = half if stream.move(self, count) == 0 else 0
        return y[..., start : y.shape[-1] - half if stream.last else None]
