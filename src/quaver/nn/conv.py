"""One-dimensional convolutions that run one-shot or as streams, with the same result.

One-shot, a layer pads its input with zeros on both sides. As a stream it keeps the inputs that
later outputs still need, and gives out what is computed from whole windows alone: as many samples
as came in, a fixed lag behind them. Chunk sizes cannot matter, because no output is ever computed
from anything but its own inputs: nothing is cross-faded, nothing decoded twice.

At a stream's first chunks a lagging output lies before its first sample, and at its last behind the
end. The padding of the next layer is there, so such outputs are set to zero. All shapes hang on a
chunk's length alone: streams that are at different places are one batch, and a GPU can record it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolutions(tf32: bool = False) -> AbstractContextManager[None]:
    """Within, whether cuDNN multiplies fp32 as TF32, which torch would let it do by default."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32)


class Memory:
    """What layers keep of the streams' last inputs, a row a stream."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kept: dict[int, Tensor] = {}

    def of(self, layer: nn.Module, x: Tensor, count: int) -> Tensor:
        """The last `count` inputs of a layer whose inputs are like x [n, channels, t]."""
        if id(layer) not in self._kept:
            self._kept[id(layer)] = x.new_zeros(self._rows, x.shape[1], count)
        return self._kept[id(layer)]

    def grow(self, rows: int) -> None:
        self._kept = {
            layer: torch.cat((kept, kept.new_zeros(rows - self._rows, *kept.shape[1:])))
            for layer, kept in self._kept.items()
        }
        self._rows = rows


@dataclass(slots=True)
class Chunk:
    """A stretch of n streams on its way through a network.

    A network's inputs come in blocks, such as the frames of a codec.
    """

    memory: Memory
    rows: Tensor  # [n] int64, of the memory
    start: Tensor  # [n] int64, blocks of each stream that came before
    end: Tensor  # [n] int64, blocks in all; where it has no end yet, more than will come
    edges: bool  # whether a lagging output may lie before a stream's start, or behind its end
    keep: bool  # whether the streams go on from here
    rate: int  # samples a block, at this depth
    lag: int = 0  # samples of what comes out behind what went in

    def window(self, layer: nn.Module, x: Tensor, count: int) -> Tensor:
        """The layer's last `count` inputs, then x [n, channels, t]."""
        memory = self.memory.of(layer, x, count)
        before = memory.index_select(0, self.rows)
        if self.edges:
            before = before.masked_fill((self.start == 0)[:, None, None], 0.0)
        window = torch.cat((before, x), dim=-1)
        if self.keep:
            memory.index_copy_(0, self.rows, window[..., -count:])
        return window

    def positions(self, count: int) -> Tensor:
        """Of the next `count` samples at this depth in their streams, [n, count]."""
        steps = torch.arange(count, device=self.start.device)
        return self.start[:, None] * self.rate - self.lag + steps

    def clean(self, x: Tensor) -> Tensor:
        """x [n, channels, t] with zeros where no stream has a sample."""
        if not self.edges:
            return x
        position = self.positions(x.shape[-1])
        outside = (position < 0) | (position >= self.end[:, None] * self.rate)
        return x.masked_fill(outside[:, None], 0.0)


class Snake(nn.Module):
    """x + sin(a x)^2 / a with a learned a per channel (Ziyin et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
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

    def forward(self, x: Tensor, chunk: Chunk | None = None) -> Tensor:
        """x [n, in, t] -> [n, out, t / stride]."""
        if chunk is None or self.padding == 0:
            return self.convolve(x, self.padding)
        window = chunk.window(self, x, 2 * self.padding)
        chunk.lag += self.padding
        return self.convolve(window, 0)

    def convolve(self, x: Tensor, padding: int) -> Tensor:
        """The bare convolution."""
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose1d(nn.Module):
    """Upsampling by an even stride with a kernel of twice the stride: output t depends on the
    inputs of its own block and the one before, half a block shifted."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 2 * stride))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, x: Tensor, chunk: Chunk | None = None) -> Tensor:
        """x [n, in, t] -> [n, out, t * stride]."""
        half = self.stride // 2
        if chunk is None:
            return F.conv_transpose1d(x, self.weight, self.bias, self.stride, half)
        window = chunk.window(self, x, 1)
        chunk.rate, chunk.lag = chunk.rate * self.stride, chunk.lag * self.stride + half
        y = F.conv_transpose1d(window, self.weight, self.bias, self.stride)
        # whole blocks: each needs its input and the one before
        return chunk.clean(y[..., self.stride : -self.stride])
