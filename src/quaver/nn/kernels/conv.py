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
import triton.language as tl
from torch import Tensor

from quaver.nn.conv import Chunk
from quaver.nn.kernels.halves import dot, halves
from quaver.nn.kernels.launch import on, starting_early, turn
from quaver.nn.kernels.random import normal
from quaver.nn.kernels.snake import snake

TAPS = 7  # of a depthwise convolution, and of the last one
ALIGNED = 16  # numbers: rows begin and windows end at multiples, which wide loads and stores need
STEP = 4  # chunks are multiples of it in length at every depth
FEW = 1 << 20  # numbers of a layer's outputs, below which a GPU has multiprocessors to spare
FIRST, UNIT, NOISE = 0, 1, 2  # what `_mix` computes
# rows of a table: of the first snake a / pi and 1 / a, of the second, taps, bias
SNAKES = 4
ROWS = SNAKES + TAPS + 1
VARYING = [
    "quads",
    "steps",
    "streams",
    "rate",
    "lag",
    "dilation",
    "stream",
    "offset",
    "skip",
    "kept",
]


@dataclass(frozen=True, slots=True)
class Window:
    """x [n, channels, steps], with room in front of each row for what a layer remembers."""

    whole: Tensor  # fp32 [n, channels, row], contiguous
    lead: int  # numbers in a row before x
    steps: int

    @classmethod
    def empty(cls, streams: int, channels: int, steps: int, room: int, like: Tensor) -> Window:
        """Room for at least so many remembered inputs."""
        lead = triton.cdiv(room, ALIGNED) * ALIGNED
        row = triton.cdiv(lead + steps, ALIGNED) * ALIGNED
        whole = torch.empty(streams, channels, row, dtype=torch.float32, device=like.device)
        return cls(whole, lead, steps)

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
    """A product over channels, with what stands around it. Outputs and inputs: channels."""

    kind: int
    weight: Tensor  # halves [2, outputs, inputs]
    bias: Tensor | None = None  # [outputs]
    table: Tensor | None = None  # [ROWS, inputs] of the depthwise convolution
    dilation: int = 1
    after: Tensor | None = None  # [2, outputs]: a / pi and 1 / a of a snake that follows

    @property
    def padding(self) -> int:
        """Inputs that a depthwise convolution reads on each side of one."""
        return 0 if self.table is None else (TAPS - 1) // 2 * self.dilation


@dataclass(frozen=True, slots=True)
class Upsample:
    """A transposed convolution by a stride, with a kernel of twice the stride."""

    weight: Tensor  # halves [2, 2, outputs * stride, inputs], of an input and of the one before
    bias: Tensor  # [outputs]
    stride: int  # a power of two

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> Upsample:
        """Of torch's weight [inputs, outputs, 2 * stride]."""
        inputs, outputs, kernel = weight.shape
        laid = weight.reshape(inputs, outputs, 2, kernel // 2).permute(2, 1, 3, 0)
        return cls(halves(laid.reshape(2, -1, inputs)), bias, kernel // 2)


def snake_rows(alpha: Tensor) -> Tensor:
    """Of a snake's learned a, what kernels read: [2, channels]."""
    alpha = alpha.flatten().double()
    return torch.stack((alpha / torch.pi, 1 / (alpha + 1e-9))).float()


def table_of(wide: Tensor, bias: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
    """A depthwise convolution [channels, 1, TAPS] and the snakes around it, by their a."""
    none = torch.zeros(2, len(bias), device=bias.device)
    snakes = [none if alpha is None else snake_rows(alpha) for alpha in (first, second)]
    return torch.cat((*snakes, wide[:, 0].t(), bias[None])).contiguous()


@triton.jit
def _columns(column, quads, streams, block: tl.constexpr, steps: tl.constexpr):
    """Columns of a block, `steps` of each of some streams: the first stream and the first step,
    how much further each column's are, and whether there is such a column. A stream has 4 * quads
    steps, which Triton then knows to be a multiple."""
    first = tl.program_id(0) * steps
    owner = tl.program_id(2) * (block // steps)
    if block == steps:
        further, step = 0, column
        there = first + step < 4 * quads
    else:
        further, step = column // steps, column % steps
        there = (first + step < 4 * quads) & (owner + further < streams)
        further = tl.minimum(further, streams - 1 - owner)
    return owner, first, further, step, there


@triton.jit
def _within(stream, step, start_pointer, end_pointer, rate, lag):
    """Whether columns lie in their streams, as in `Chunk.clean`."""
    before = tl.load(start_pointer + stream) * rate - lag
    after = tl.load(end_pointer + stream) * rate - before
    low = tl.maximum(-before, 0).to(tl.int32)
    return (step >= low) & (step < tl.minimum(after, 1 << 30).to(tl.int32))


@triton.jit
def _around(
    table_pointer,
    places,
    c,
    there,
    channels,
    dilation,
    snaked: tl.constexpr,
    taps: tl.constexpr,
):
    """The depthwise convolution of channels c, whose first inputs are at `places` [c, n, 32], where
    columns are `there` [1, n, 32], and the snakes around it -> [c, columns].

    In three dimensions, since Triton then gives a thread several columns of few channels: it reads
    little of the table.
    """
    inside = c < channels
    table = table_pointer + c
    turns = tl.load(table, mask=inside, other=0.0)[:, None, None]
    inverse = tl.load(table + channels, mask=inside, other=0.0)[:, None, None]
    bias = tl.load(table + (4 + taps) * channels, mask=inside, other=0.0)[:, None, None]
    known = inside[:, None, None] & there
    total = tl.zeros(known.shape, tl.float32) + bias
    for tap in tl.range(taps, loop_unroll_factor=1):  # or all are asked for at once, and spilt
        x = tl.load(places + tap * dilation, mask=known, other=0.0)
        if snaked:
            x = snake(x, turns, inverse)
        weight = tl.load(table + (4 + tap) * channels, mask=inside, other=0.0)
        total += weight[:, None, None] * x
    if snaked:
        turns = tl.load(table + 2 * channels, mask=inside, other=0.0)[:, None, None]
        inverse = tl.load(table + 3 * channels, mask=inside, other=0.0)[:, None, None]
        total = snake(total, turns, inverse)
    return tl.reshape(total, (c.shape[0], total.shape[1] * total.shape[2]))


@triton.jit(do_not_specialize=VARYING)
def _mix(
    x_pointer,
    weight_pointer,
    bias_pointer,
    table_pointer,
    after_pointer,
    out_pointer,
    start_pointer,
    end_pointer,
    noise_pointer,
    inputs,
    outputs,
    in_row,
    out_row,
    out_lead,
    quads,
    streams,
    rate,
    lag,
    dilation,
    offset,
    skip,
    kind: tl.constexpr,
    snaked: tl.constexpr,
    taps: tl.constexpr,
    block_outputs: tl.constexpr,
    block_columns: tl.constexpr,
    block_steps: tl.constexpr,
    block_inputs: tl.constexpr,
    early: tl.constexpr,
):
    """One block of outputs of one block of columns. `offset` is where in its row a window begins,
    `skip` where the inputs of the same positions do."""
    turn(early)
    owner, start, further, step, there = _columns(
        tl.arange(0, block_columns), quads, streams, block_columns, block_steps
    )
    n = tl.program_id(1) * block_outputs + tl.arange(0, block_outputs)
    x_pointer += owner.to(tl.int64) * inputs * in_row + start
    column = (further * inputs * in_row + step)[None, :]
    channel = tl.arange(0, block_inputs)
    if kind == 2:
        places = x_pointer + offset + channel[:, None].to(tl.int64) * in_row + column
        there_own = there[None, :]
    else:
        lines = tl.arange(0, block_columns // 32)[None, :, None] * 32 + tl.arange(0, 32)
        _, _, far, near, there_own = _columns(lines, quads, streams, block_columns, block_steps)
        places = x_pointer + offset + channel[:, None, None].to(tl.int64) * in_row
        places += far * inputs * in_row + near
    large = tl.zeros((block_outputs, block_columns), tl.float32)
    small = tl.zeros((block_outputs, block_columns), tl.float32)
    for first in range(0, inputs, block_inputs):
        c = first + channel
        own = places + tl.cast(first, tl.int64) * in_row
        if kind == 2:
            x = tl.load(own, mask=(c[:, None] < inputs) & there_own, other=0.0)
        else:
            x = _around(table_pointer, own, c, there_own, inputs, dilation, kind == 1, taps)
        large, small = dot(weight_pointer, n, c, outputs, inputs, outputs, x, large, small)
    total = large + small * (2.0**-11)
    known = (n[:, None] < outputs) & there[None, :]
    if kind != 2:
        total += tl.load(bias_pointer + n, mask=n < outputs, other=0.0)[:, None]
    if kind == 2:
        noise = noise_pointer + (owner + further).to(tl.int64) * (4 * quads) + start + step
        total *= tl.load(noise, mask=there, other=0.0)[None, :]
    if kind != 0:
        places = x_pointer + skip + n[:, None].to(tl.int64) * in_row + column
        total += tl.load(places, mask=known, other=0.0)
    inside = _within(owner + further, start + step, start_pointer, end_pointer, rate, lag)
    total = tl.where(inside[None, :], total, 0.0)
    if snaked:
        turns = tl.load(after_pointer + n, mask=n < outputs, other=0.0)
        inverse = tl.load(after_pointer + outputs + n, mask=n < outputs, other=0.0)
        total = snake(total, turns[:, None], inverse[:, None])
    out_pointer += owner.to(tl.int64) * outputs * out_row + out_lead + start
    column = (further * outputs * out_row + step)[None, :]
    tl.store(out_pointer + n[:, None].to(tl.int64) * out_row + column, total, mask=known)


@triton.jit(do_not_specialize=VARYING)
def _upsample(
    x_pointer,
    weight_pointer,
    bias_pointer,
    out_pointer,
    start_pointer,
    end_pointer,
    inputs,
    outputs,
    in_row,
    in_lead,
    out_row,
    out_lead,
    quads,
    streams,
    rate,
    lag,
    stride: tl.constexpr,
    block_outputs: tl.constexpr,
    block_columns: tl.constexpr,
    block_steps: tl.constexpr,
    block_inputs: tl.constexpr,
    early: tl.constexpr,
):
    """One block of outputs, `stride` to a channel, of one block of columns."""
    turn(early)
    owner, start, further, step, there = _columns(
        tl.arange(0, block_columns), quads, streams, block_columns, block_steps
    )
    rows = outputs * stride
    m = tl.program_id(1) * block_outputs + tl.arange(0, block_outputs)
    x_pointer += owner.to(tl.int64) * inputs * in_row + in_lead + start
    channel = tl.arange(0, block_inputs)
    places = (
        x_pointer
        + channel[:, None].to(tl.int64) * in_row
        + (further * inputs * in_row + step)[None, :]
    )
    large = tl.zeros((block_outputs, block_columns), tl.float32)
    small = tl.zeros((block_outputs, block_columns), tl.float32)
    for first in range(0, inputs, block_inputs):
        c = first + channel
        known = (c[:, None] < inputs) & there[None, :]
        for before in tl.static_range(2):
            x = tl.load(places + tl.cast(first, tl.int64) * in_row - before, mask=known, other=0.0)
            own = m + before * rows
            limit = rows * (1 + before)
            large, small = dot(weight_pointer, own, c, limit, inputs, 2 * rows, x, large, small)
    total = large + small * (2.0**-11)
    # a channel's outputs of one input stand side by side
    channels: tl.constexpr = block_outputs // stride
    length: tl.constexpr = block_columns * stride
    total = tl.reshape(total, (channels, stride, block_columns))
    total = tl.reshape(tl.permute(total, (0, 2, 1)), (channels, length))
    n = tl.program_id(1) * channels + tl.arange(0, channels)
    total += tl.load(bias_pointer + n, mask=n < outputs, other=0.0)[:, None]
    owner, start, further, step, there = _columns(
        tl.arange(0, length), quads * stride, streams, length, block_steps * stride
    )
    inside = _within(owner + further, start + step, start_pointer, end_pointer, rate, lag)
    total = tl.where(inside[None, :], total, 0.0)
    out_pointer += owner.to(tl.int64) * outputs * out_row + out_lead + start
    column = (further * outputs * out_row + step)[None, :]
    known = (n[:, None] < outputs) & there[None, :]
    tl.store(out_pointer + n[:, None].to(tl.int64) * out_row + column, total, mask=known)


@triton.jit(do_not_specialize=VARYING)
def _last(
    x_pointer,
    weight_pointer,
    bias_pointer,
    out_pointer,
    inputs,
    in_row,
    quads,
    streams,
    offset,
    taps: tl.constexpr,
    block_columns: tl.constexpr,
    block_inputs: tl.constexpr,
    early: tl.constexpr,
):
    """A convolution to one channel, of one block of columns."""
    turn(early)
    owner, start, _, step, there = _columns(
        tl.arange(0, block_columns), quads, streams, block_columns, block_columns
    )
    places = x_pointer + owner.to(tl.int64) * inputs * in_row + offset + start
    places += tl.arange(0, block_inputs)[:, None].to(tl.int64) * in_row + step[None, :]
    total = tl.zeros((block_inputs, block_columns), tl.float32)
    for first in range(0, inputs, block_inputs):
        c = first + tl.arange(0, block_inputs)
        known = (c[:, None] < inputs) & there[None, :]
        own = places + tl.cast(first, tl.int64) * in_row
        for tap in tl.static_range(taps):
            weight = tl.load(weight_pointer + c * taps + tap, mask=c < inputs, other=0.0)
            total += weight[:, None] * tl.load(own + tap, mask=known, other=0.0)
    out = owner.to(tl.int64) * (4 * quads) + start + step
    tl.store(out_pointer + out, tl.sum(total, 0) + tl.load(bias_pointer), mask=there)


@triton.jit(do_not_specialize=VARYING)
def _draw(
    out_pointer,
    start_pointer,
    seed_pointer,
    steps,
    rate,
    lag,
    stream,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """Noise of one block of steps of one stream."""
    turn(early)
    owner = tl.program_id(1).to(tl.int64)
    step = tl.program_id(0) * block + tl.arange(0, block)
    position = tl.load(start_pointer + owner) * rate - lag + step
    noise = normal(tl.load(seed_pointer + owner), stream, position)
    tl.store(out_pointer + owner * steps + step, noise, mask=step < steps)


@triton.jit(do_not_specialize=VARYING)
def _recall(
    window_pointer,
    memory_pointer,
    rows_pointer,
    start_pointer,
    channels,
    row,
    lead,
    steps,
    count,
    kept,
    block_channels: tl.constexpr,
    block_count: tl.constexpr,
    early: tl.constexpr,
):
    """Some channels of one stream."""
    turn(early)
    owner = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)[:, None]
    k = tl.arange(0, block_count)[None, :]
    known = (c < channels) & (k < count)
    memory = memory_pointer + (tl.load(rows_pointer + owner) * channels + c) * count + k
    window = window_pointer + (owner * channels + c) * row + lead - count + k
    begun = tl.load(start_pointer + owner) > 0
    tl.store(window, tl.load(memory, mask=known & begun, other=0.0), mask=known)
    tl.debug_barrier()  # the last inputs may reach back into what was remembered
    tl.store(memory, tl.load(window + steps, mask=known, other=0.0), mask=known & (kept != 0))


def mix_shape(kind: int, outputs: int, columns: int) -> Shape:
    """Chosen by counting registers and bytes. Outputs of a column are in few programs, since each
    computes anew what stands before the product; where there are few columns, in more."""
    block = min(max(16, triton.next_power_of_2(outputs)), 256)
    stages = 3 if kind == NOISE else 1  # loads ahead of a convolution would fill shared memory
    if columns * block < FEW:
        return Shape(min(block, 64), 32, 64, warps=4, stages=stages)
    return Shape(block, 64 if block == 256 else 128, 32, warps=8, stages=stages)


def upsample_shape(outputs: int, columns: int) -> Shape:
    """Outputs: strides times channels."""
    if columns * outputs < FEW:
        return Shape(64, 32, 64, warps=4, stages=3)
    return Shape(128, 128, 32, warps=8, stages=3)


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
        _draw[(triton.cdiv(steps, 256), streams)](
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


def recall(window: Window, memory: Tensor, chunk: Chunk) -> None:
    """Put what a layer's memory [rows, channels, count] kept before x, and keep its last inputs."""
    streams, channels, row = window.whole.shape
    count = memory.shape[2]
    block = triton.next_power_of_2(count)
    each = min(triton.next_power_of_2(channels), 1024 // block)
    with on(memory.device):
        _recall[(streams, triton.cdiv(channels, each))](
            window.whole,
            memory,
            chunk.rows,
            chunk.start,
            channels,
            row,
            window.lead,
            window.steps,
            count,
            int(chunk.keep),
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
    shape: Shape | None = None,
) -> Window:
    """x -> W x and what the layer has around it, `layer.padding` behind the window, with `room` for
    what the next one remembers. The chunk's lag is that of what comes out."""
    _, outputs, inputs = layer.weight.shape
    streams, _, row = window.whole.shape
    out = Window.empty(streams, outputs, window.steps, room, window.whole)
    shape = shape or mix_shape(layer.kind, outputs, streams * window.steps)
    each = steps_of(shape.columns, window.steps)
    with on(window.whole.device):
        _mix[grid_of(outputs, streams, window.steps, shape, each)](
            window.whole,
            layer.weight,
            layer.bias,
            layer.table,
            layer.after,
            out.whole,
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
            window.lead - 2 * layer.padding,
            window.lead - layer.padding,
            kind=layer.kind,
            snaked=layer.after is not None,
            taps=TAPS,
            block_outputs=shape.outputs,
            block_columns=shape.columns,
            block_steps=each,
            block_inputs=shape.inputs,
            num_warps=shape.warps,
            num_stages=shape.stages,
            **starting_early(window.whole.device),
        )
    return out


def upsample(
    layer: Upsample, window: Window, chunk: Chunk, room: int, shape: Shape | None = None
) -> Window:
    """x -> `stride` times as many steps. The chunk's rate and lag are those of what comes out."""
    streams, inputs, row = window.whole.shape
    outputs, steps = len(layer.bias), window.steps * layer.stride
    out = Window.empty(streams, outputs, steps, room, window.whole)
    shape = shape or upsample_shape(outputs * layer.stride, streams * window.steps)
    each = steps_of(shape.columns, window.steps)
    with on(window.whole.device):
        _upsample[grid_of(outputs * layer.stride, streams, window.steps, shape, each)](
            window.whole,
            layer.weight,
            layer.bias,
            out.whole,
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
            stride=layer.stride,
            block_outputs=shape.outputs,
            block_columns=shape.columns,
            block_steps=each,
            block_inputs=shape.inputs,
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
        _last[(triton.cdiv(window.steps, columns), 1, streams)](
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
            block_inputs=16,
            **starting_early(window.whole.device),
        )
    return out
