"""The layers of `codecs.snac`'s decoder as streams, one launch each, as `nn.conv` defines them.

A layer reads a window: what its memory kept of the streams' last inputs, and the new ones. A kernel
writes its outputs where the next layer's window has room in front of them, and `recall` fills that
room from memory. So a layer reads its inputs once and writes its outputs once, whatever stands
between: snakes, the depthwise convolution, bias, skip path, noise, zeros outside of the stream.

Chunks of all lengths share a compiled kernel, but for short ones, of which a block has several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from quaver.nn.conv import Chunk
from quaver.nn.kernels import conv
from quaver.nn.kernels.halves import halves
from quaver.nn.kernels.launch import on, starting_early

TAPS = 7  # of a depthwise convolution, and of the last one
ALIGNED = 16  # numbers: rows begin and windows end at multiples, which wide loads and stores need
STEP = 4  # chunks are multiples of it in length at every depth
FEW = 1 << 20  # numbers of a layer's outputs, below which a GPU has multiprocessors to spare
FIRST, UNIT, NOISE = 0, 1, 2  # kinds of `Mix`
PLAIN, INSTEAD, BESIDE = 0, 1, 2  # a snake that follows: none, of what is written, or of a copy


@dataclass(frozen=True, slots=True)
class Window:
    """x [n, channels, steps], with room in front of each row for what a layer remembers."""

    whole: Tensor  # fp32 [n, channels, row], contiguous
    lead: int  # numbers in a row before x
    steps: int
    snaked: Tensor | None = None  # the same through the snake of the unit that reads it

    @classmethod
    def empty(
        cls,
        streams: int,
        channels: int,
        steps: int,
        room: int,
        like: Tensor,
        snaked: bool = False,
    ) -> Window:
        """Room for at least so many remembered inputs."""
        if steps % STEP:
            raise ValueError(f"a chunk has {steps} steps; kernels take multiples of {STEP}")
        lead = triton.cdiv(room, ALIGNED) * ALIGNED
        row = triton.cdiv(lead + steps, ALIGNED) * ALIGNED
        whole = torch.empty(streams, channels, row, dtype=torch.float32, device=like.device)
        return cls(whole, lead, steps, torch.empty_like(whole) if snaked else None)

    @property
    def x(self) -> Tensor:
        """[n, channels, steps]"""
        return self.whole[..., self.lead : self.lead + self.steps]


class Shape(NamedTuple):
    """How a product is cut."""

    outputs: int  # of a program
    columns: int
    inputs: int  # of one turn of its loop
    warps: int
    stages: int  # of the loop's loads


@dataclass(frozen=True, slots=True)
class Mix:
    """A product over channels, with what stands around it. Outputs and inputs: channels.

    A unit reads its inputs as they are and through a snake, which the layer before computes once
    for each of them: the depthwise convolution reads it seven times.
    """

    kind: int
    weight: Tensor  # halves [1 or 2, outputs, inputs]
    bias: Tensor | None = None  # [outputs]
    table: Tensor | None = None  # [2 + TAPS + 1, inputs] as from `table_of`
    dilation: int = 1
    before: Tensor | None = None  # [2, inputs]: a / pi and 1 / a of a unit's first snake
    after: Tensor | None = None  # [2, outputs]: of a snake that follows

    @property
    def padding(self) -> int:
        """Inputs that a depthwise convolution reads on each side of one."""
        return 0 if self.table is None else (TAPS - 1) // 2 * self.dilation


@dataclass(frozen=True, slots=True)
class Upsample:
    """A transposed convolution by a stride, with a kernel of twice the stride."""

    weight: Tensor  # halves [1 or 2, 2, outputs * stride, inputs], of an input and the one before
    bias: Tensor  # [outputs]
    stride: int  # a power of two

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, exact: bool = True) -> Upsample:
        """Of torch's weight [inputs, outputs, 2 * stride]; `exact` as for `halves`."""
        inputs, outputs, kernel = weight.shape
        laid = weight.reshape(inputs, outputs, 2, kernel // 2).permute(2, 1, 3, 0)
        return cls(halves(laid.reshape(2, -1, inputs), exact), bias, kernel // 2)


def snake_rows(alpha: Tensor) -> Tensor:
    """Of a snake's learned a, what kernels read: [2, channels]."""
    alpha = alpha.flatten().double()
    return torch.stack((alpha / torch.pi, 1 / (alpha + 1e-9))).float()


def table_of(wide: Tensor, bias: Tensor, snake: Tensor | None) -> Tensor:
    """A depthwise convolution [channels, 1, TAPS] and the snake that follows it, by its a: rows of
    a / pi and 1 / a, taps, bias."""
    rows = torch.zeros(2, len(bias), device=bias.device) if snake is None else snake_rows(snake)
    return torch.cat((rows, wide[:, 0].t(), bias[None])).contiguous()


def mix_shape(kind: int, outputs: int, columns: int) -> Shape:
    """By what the compiler says of registers and shared memory (99 KB is what small GPUs have): no
    more than a thread has, and two programs a multiprocessor or one of 16 warps; and, for large
    layers, by what was fastest on an H200. All outputs of a
    column are in few programs, since each computes anew what stands before the product."""
    block = min(max(16, triton.next_power_of_2(outputs)), 256)
    if columns * outputs < FEW:
        # a convolution's loads ahead would fill shared memory
        return Shape(min(block, 64), 32, 32, warps=4, stages=3 if kind == NOISE else 1)
    inputs = 16 if kind == NOISE or block == 128 else 32
    return Shape(block, 64, inputs, warps=max(4, block // 16), stages=1)


def upsample_shape(outputs: int, columns: int) -> Shape:
    """Outputs: strides times channels."""
    if columns * outputs < FEW:
        return Shape(64, 32, 32, warps=4, stages=3)
    return Shape(128, 64, 32, warps=8, stages=2)


def steps_of(columns: int, steps: int) -> int:
    """How many columns of a block are one stream's: a block has several streams of few steps."""
    return min(columns, max(16, triton.next_power_of_2(steps)))


def grid_of(outputs: int, streams: int, steps: int, shape: Shape, each: int) -> tuple[int, ...]:
    """Programs: by step, by output, by stream."""
    together = shape.columns // each
    return (
        triton.cdiv(steps, each),
        triton.cdiv(outputs, shape.outputs),
        triton.cdiv(streams, together),
    )


def draw(window: Window, chunk: Chunk, seeds: Tensor, stream: int) -> Tensor:
    """Standard normal noise [n, steps] of seeds [n] for what stands in a window, as `NoiseBlock`'s:
    of one stream of numbers, by position."""
    streams, steps = len(seeds), window.steps
    out = torch.empty(streams, steps, dtype=torch.float32, device=seeds.device)
    with on(seeds.device):
        conv.draw[(triton.cdiv(steps, 256), streams)](
            out,
            chunk.start,
            seeds,
            steps,
            chunk.rate,
            chunk.lag,
            stream,
            block=256,
            **starting_early(seeds.device),
        )
    return out


def recall(window: Window, memory: Tensor, chunk: Chunk, snake: Tensor | None = None) -> None:
    """Put what a layer's memory [rows, channels, count] kept before x, and keep its last inputs.
    `snake`, its rows, is that through which the window is read."""
    streams, channels, row = window.whole.shape
    count = memory.shape[2]
    block = triton.next_power_of_2(count)
    each = min(triton.next_power_of_2(channels), 1024 // block)
    with on(memory.device):
        conv.recall[(streams, triton.cdiv(channels, each))](
            window.whole,
            window.snaked,
            snake,
            memory,
            chunk.rows,
            chunk.start,
            channels,
            row,
            window.lead,
            window.steps,
            count,
            int(chunk.keep),
            snaked=snake is not None,
            block_channels=each,
            block_count=block,
            **starting_early(memory.device),
        )


def mix(
    layer: Mix,
    window: Window,
    chunk: Chunk,
    room: int,
    noise: Tensor | None = None,
    reader: Mix | None = None,
    shape: Shape | None = None,
) -> Window:
    """x -> W x and what the layer has around it, `layer.padding` behind the window, with `room` for
    what the next one remembers. The chunk's lag is that of what comes out. `reader` is the unit
    that comes next."""
    _, outputs, inputs = layer.weight.shape
    streams, _, row = window.whole.shape
    following = layer.after if reader is None else reader.before
    beside = reader is not None
    out = Window.empty(streams, outputs, window.steps, room, window.whole, beside)
    shape = shape or mix_shape(layer.kind, outputs, streams * window.steps)
    each = steps_of(shape.columns, window.steps)
    with on(window.whole.device):
        conv.mix[grid_of(outputs, streams, window.steps, shape, each)](
            window.whole,
            window.whole if window.snaked is None else window.snaked,
            layer.weight,
            layer.bias,
            layer.table,
            layer.weight if following is None else following,
            out.whole,
            out.whole if out.snaked is None else out.snaked,
            chunk.start,
            chunk.end,
            noise,
            inputs,
            outputs,
            row,
            out.whole.shape[2],
            out.lead,
            window.steps // STEP,
            streams,
            chunk.rate,
            chunk.lag,
            layer.dilation,
            PLAIN if following is None else BESIDE if beside else INSTEAD,
            window.lead - 2 * layer.padding,
            window.lead - layer.padding,
            kind=layer.kind,
            taps=TAPS,
            block_outputs=shape.outputs,
            block_columns=shape.columns,
            block_steps=each,
            block_inputs=shape.inputs,
            exact=len(layer.weight) > 1,
            num_warps=shape.warps,
            num_stages=shape.stages,
            **starting_early(window.whole.device),
        )
    return out


def upsample(
    layer: Upsample,
    window: Window,
    chunk: Chunk,
    room: int,
    reader: Mix | None = None,
    shape: Shape | None = None,
) -> Window:
    """x -> `stride` times as many steps. The chunk's rate and lag are those of what comes out.
    `reader` is the unit that comes next."""
    streams, inputs, row = window.whole.shape
    outputs, steps = len(layer.bias), window.steps * layer.stride
    following = None if reader is None else reader.before
    out = Window.empty(streams, outputs, steps, room, window.whole, following is not None)
    shape = shape or upsample_shape(outputs * layer.stride, streams * window.steps)
    each = steps_of(shape.columns, window.steps)
    with on(window.whole.device):
        conv.upsample[grid_of(outputs * layer.stride, streams, window.steps, shape, each)](
            window.whole,
            layer.weight,
            layer.bias,
            layer.bias if following is None else following,
            out.whole,
            out.whole if out.snaked is None else out.snaked,
            chunk.start,
            chunk.end,
            inputs,
            outputs,
            row,
            window.lead,
            out.whole.shape[2],
            out.lead,
            window.steps // STEP,
            streams,
            chunk.rate,
            chunk.lag,
            PLAIN if following is None else BESIDE,
            stride=layer.stride,
            block_outputs=shape.outputs,
            block_columns=shape.columns,
            block_steps=each,
            block_inputs=shape.inputs,
            exact=len(layer.weight) > 1,
            num_warps=shape.warps,
            num_stages=shape.stages,
            **starting_early(window.whole.device),
        )
    return out


def last(weight: Tensor, bias: Tensor, window: Window, columns: int = 128) -> Tensor:
    """A convolution [1, channels, TAPS] of a window -> [n, 1, steps]."""
    streams, channels, row = window.whole.shape
    out = torch.empty(streams, 1, window.steps, dtype=torch.float32, device=window.whole.device)
    with on(window.whole.device):
        conv.last[(triton.cdiv(window.steps, columns), 1, streams)](
            window.whole,
            weight,
            bias,
            out,
            channels,
            row,
            window.steps // STEP,
            streams,
            window.lead - (TAPS - 1),
            taps=TAPS,
            block_columns=columns,
            block_inputs=8,
            **starting_early(window.whole.device),
        )
    return out
