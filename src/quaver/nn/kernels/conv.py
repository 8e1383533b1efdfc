"""The kernels of `layers`, which says what they compute, and launches them."""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.halves import dot
from quaver.nn.kernels.launch import turn
from quaver.nn.kernels.random import normal
from quaver.nn.kernels.snake import snake

# What no kernel is compiled anew for: numbers that vary by batch or by layer, and pointers that may
# be to rows of one tensor.
OF_BATCHES = ["quads", "steps", "streams", "kept"]
OF_LAYERS = ["rate", "lag", "stream", "dilation", "followed", "offset", "skip"]
VARYING = OF_BATCHES + OF_LAYERS
UNALIGNED = ["rows_pointer", "start_pointer", "end_pointer", "seed_pointer"]


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
def within(stream, step, start_pointer, end_pointer, rate, lag) -> tl.tensor:
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
    columns are `there` [1, n, 32], and the snake that follows -> [c, columns].

    In three dimensions, since Triton then gives a thread several columns of few channels: it reads
    little of the table.
    """
    inside = c < channels
    table = table_pointer + c
    bias = tl.load(table + (2 + taps) * channels, mask=inside, other=0.0)[:, None, None]
    known = inside[:, None, None] & there
    total = tl.zeros(known.shape, tl.float32) + bias
    for tap in tl.range(taps, loop_unroll_factor=1):  # or all are asked for at once, and spilt
        x = tl.load(places + tap * dilation, mask=known, other=0.0)
        weight = tl.load(table + (2 + tap) * channels, mask=inside, other=0.0)
        total += weight[:, None, None] * x
    if snaked:
        turns = tl.load(table, mask=inside, other=0.0)[:, None, None]
        inverse = tl.load(table + channels, mask=inside, other=0.0)[:, None, None]
        total = snake(total, turns, inverse)
    return tl.reshape(total, (c.shape[0], total.shape[1] * total.shape[2]))


@triton.jit
def _leave(out_pointer, beside_pointer, after_pointer, place, total, known, n, outputs, followed):
    """Write channels n: as they are, through the snake that follows (1), or both (2)."""
    if followed != 1:
        tl.store(out_pointer + place, total, mask=known)
    if followed != 0:
        turns = tl.load(after_pointer + n, mask=n < outputs, other=0.0)
        inverse = tl.load(after_pointer + outputs + n, mask=n < outputs, other=0.0)
        total = snake(total, turns[:, None], inverse[:, None])
        tl.store((out_pointer if followed == 1 else beside_pointer) + place, total, mask=known)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=UNALIGNED)
def mix(
    x_pointer,
    snaked_pointer,
    weight_pointer,
    bias_pointer,
    table_pointer,
    after_pointer,
    out_pointer,
    beside_pointer,
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
    followed,
    offset,
    skip,
    kind: tl.constexpr,
    taps: tl.constexpr,
    block_outputs: tl.constexpr,
    block_columns: tl.constexpr,
    block_steps: tl.constexpr,
    block_inputs: tl.constexpr,
    exact: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """One block of outputs of one block of columns. `offset` is where in its row a window begins,
    `skip` where the inputs of the same positions do, `followed` by what snake."""
    turn(early)
    owner, start, further, step, there = _columns(
        tl.arange(0, block_columns), quads, streams, block_columns, block_steps
    )
    n = tl.program_id(1) * block_outputs + tl.arange(0, block_outputs)
    window = owner.to(tl.int64) * inputs * in_row + start
    x_pointer += window
    column = (further * inputs * in_row + step)[None, :]
    channel = tl.arange(0, block_inputs)
    if kind == 2:
        places = x_pointer + offset + channel[:, None].to(tl.int64) * in_row + column
        there_own = there[None, :]
    else:
        lines = tl.arange(0, block_columns // 32)[None, :, None] * 32 + tl.arange(0, 32)
        _, _, far, near, there_own = _columns(lines, quads, streams, block_columns, block_steps)
        read = snaked_pointer + window if kind == 1 else x_pointer
        places = read + offset + channel[:, None, None].to(tl.int64) * in_row
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
        large, small = dot(weight_pointer, n, c, outputs, inputs, outputs, x, large, small, exact)
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
    inside = within(owner + further, start + step, start_pointer, end_pointer, rate, lag)
    total = tl.where(inside[None, :], total, 0.0)
    place = owner.to(tl.int64) * outputs * out_row + out_lead + start
    place += n[:, None].to(tl.int64) * out_row + (further * outputs * out_row + step)[None, :]
    _leave(out_pointer, beside_pointer, after_pointer, place, total, known, n, outputs, followed)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=UNALIGNED)
def upsample(
    x_pointer,
    weight_pointer,
    bias_pointer,
    after_pointer,
    out_pointer,
    beside_pointer,
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
    followed,
    stride: tl.constexpr,
    block_outputs: tl.constexpr,
    block_columns: tl.constexpr,
    block_steps: tl.constexpr,
    block_inputs: tl.constexpr,
    exact: tl.constexpr,
    early: tl.constexpr,
) -> None:
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
            large, small = dot(
                weight_pointer, own, c, limit, inputs, 2 * rows, x, large, small, exact
            )
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
    inside = within(owner + further, start + step, start_pointer, end_pointer, rate, lag)
    total = tl.where(inside[None, :], total, 0.0)
    place = owner.to(tl.int64) * outputs * out_row + out_lead + start
    place += n[:, None].to(tl.int64) * out_row + (further * outputs * out_row + step)[None, :]
    known = (n[:, None] < outputs) & there[None, :]
    _leave(out_pointer, beside_pointer, after_pointer, place, total, known, n, outputs, followed)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=UNALIGNED)
def last(
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
) -> None:
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


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=UNALIGNED)
def draw(
    out_pointer,
    start_pointer,
    seed_pointer,
    steps,
    rate,
    lag,
    stream,
    block: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Noise of one block of steps of one stream."""
    turn(early)
    owner = tl.program_id(1).to(tl.int64)
    step = tl.program_id(0) * block + tl.arange(0, block)
    position = tl.load(start_pointer + owner) * rate - lag + step
    noise = normal(tl.load(seed_pointer + owner), stream, position)
    tl.store(out_pointer + owner * steps + step, noise, mask=step < steps)


@triton.jit(do_not_specialize=VARYING, do_not_specialize_on_alignment=UNALIGNED)
def recall(
    window_pointer,
    snaked_pointer,
    after_pointer,
    memory_pointer,
    rows_pointer,
    start_pointer,
    channels,
    row,
    lead,
    steps,
    count,
    kept,
    snaked: tl.constexpr,
    block_channels: tl.constexpr,
    block_count: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """Some channels of one stream."""
    turn(early)
    owner = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * block_channels + tl.arange(0, block_channels)[:, None]
    k = tl.arange(0, block_count)[None, :]
    known = (c < channels) & (k < count)
    memory = memory_pointer + (tl.load(rows_pointer + owner) * channels + c) * count + k
    place = (owner * channels + c) * row + lead - count + k
    window = window_pointer + place
    begun = tl.load(start_pointer + owner) > 0
    x = tl.load(memory, mask=known & begun, other=0.0)
    tl.store(window, x, mask=known)
    if snaked:
        turns = tl.load(after_pointer + c, mask=c < channels, other=0.0)
        inverse = tl.load(after_pointer + channels + c, mask=c < channels, other=0.0)
        tl.store(snaked_pointer + place, snake(x, turns, inverse), mask=known)
    tl.debug_barrier()  # the last inputs may reach back into what was remembered
    tl.store(memory, tl.load(window + steps, mask=known, other=0.0), mask=known & (kept != 0))
