"""The kernel of a product of few rows; `skinny` says what it computes, and launches it."""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.digits import gathered
from quaver.nn.kernels.inputs import write_row
from quaver.nn.kernels.launch import meet, turn
from quaver.nn.kernels.unpack import SIXTEENTH, unpacked


@triton.jit
def _scales(
    pointer, n, k, outputs, inputs, group, groups, gated: tl.constexpr, grouped: tl.constexpr
):
    """Of rows n, and of those that gate them, for the groups of inputs k."""
    own = tl.full(n.shape, 1.0, tl.float32)
    gate = own
    if grouped:
        there = (n < outputs) & (k < inputs)
        own = tl.load(pointer + n * groups + k // group, mask=there, other=0.0)
        if gated:
            place = pointer + (n + outputs) * groups + k // group
            gate = tl.load(place, mask=there, other=0.0)
    return own, gate


@triton.jit
def _loaded(x_pointer, line, start, there, inputs, packs: tl.constexpr, block: tl.constexpr):
    """Columns of `block` inputs, each of its line and from its start on, [k, columns]; or those
    that meet the first of two weights in a byte, and those that meet the second."""
    length = inputs // packs
    k = start[:, None] // packs + tl.arange(0, block // packs)[None, :]
    inside = there[:, None] & (k < length)
    place = x_pointer + line[:, None] * inputs + k
    x = tl.trans(tl.load(place, mask=inside, other=0.0))
    other = x
    if packs == 2:
        other = tl.trans(tl.load(place + length, mask=inside, other=0.0))
    return x, other


@triton.jit
def _dense(pointer, n, start, x, outputs, inputs, block_inputs: tl.constexpr):
    """Rows n of a weight, each from its start on, times so many inputs, x [inputs, columns]."""
    k = start[:, None] + tl.arange(0, block_inputs)[None, :]
    inside = (n[:, None] < outputs) & (k < inputs)
    place = pointer + n[:, None].to(tl.int64) * inputs + k
    weight = tl.load(place, mask=inside, other=0.0)
    if x.dtype != tl.float8e4nv:  # which is multiplied by both kinds of eight-bit floats
        weight = weight.to(x.dtype)
    return tl.dot(weight, x, out_dtype=tl.int32 if x.dtype == tl.int8 else tl.float32)


@triton.jit
def _packed(
    pointer,
    levels_pointer,
    n,
    start,
    even,
    odd,
    outputs,
    inputs,
    kind: tl.constexpr,
    block_inputs: tl.constexpr,
):
    """The same for a weight with two to a byte, with every second input and the others."""
    k = start[:, None] // 2 + tl.arange(0, block_inputs // 2)[None, :]
    length = inputs // 2
    inside = (n[:, None] < outputs) & (k < length)
    place = pointer + n[:, None].to(tl.int64) * length + k
    packed = tl.load(place, mask=inside, other=0)
    sums: tl.constexpr = tl.int32 if even.dtype == tl.int8 else tl.float32
    part = tl.dot(unpacked(packed, levels_pointer, 0, kind, even.dtype), even, out_dtype=sums)
    return tl.dot(unpacked(packed, levels_pointer, 1, kind, odd.dtype), odd, part, out_dtype=sums)


@triton.jit
def _gathered(
    sums,
    stretch,
    each: tl.constexpr,
    whole: tl.constexpr,
    shares: tl.constexpr,
    rows: tl.constexpr,
):
    """Sums [outputs * shares, columns] -> [outputs, rows of inputs]. Of a product whose outputs
    share inputs, a row of sums means only the columns of its own stretch."""
    sums = gathered(sums, each, whole)
    if shares > 1:
        other = tl.arange(0, sums.shape[1])
        own = tl.sum(tl.where(other[None, :] == stretch[:, None], sums, 0.0), 1)
        sums = tl.sum(tl.reshape(own, (sums.shape[0] // shares, shares)), 1)[:, None]
    elif sums.shape[1] > rows:  # the columns that one row leaves unused
        sums = tl.sum(sums, 1)[:, None]
    return sums


@triton.jit
def _shared(
    total,
    gate,
    parts_pointer,
    ticket,
    n,
    m,
    inside,
    rows,
    outputs,
    splits: tl.constexpr,
    gated: tl.constexpr,
):
    """Leave what this program has of a sum, and take the whole if it is the last: whether it is,
    and the sums. Parts are [splits, halves, outputs, rows]."""
    half = outputs * rows
    size = half * 2 if gated else half
    parts = parts_pointer + n[:, None] * rows + m[None, :]
    own = parts + tl.program_id(1) * size
    tl.store(own, total, mask=inside)
    if gated:
        tl.store(own + half, gate, mask=inside)
    tl.debug_barrier()
    last = tl.atomic_add(ticket, 1, sem="acq_rel") == splits - 1
    if last:
        tl.store(ticket, 0)
        total = tl.zeros(total.shape, tl.float32)
        gate = total
        for one in tl.static_range(splits):  # unrolled: they are all asked for at once
            other = parts + one * size
            total += tl.load(other, mask=inside, other=0.0, cache_modifier=".cg")
            if gated:
                gate += tl.load(other + half, mask=inside, other=0.0, cache_modifier=".cg")
    return last, total, gate


@triton.jit
def product(
    row_pointer,
    x_pointer,
    weight_pointer,
    scale_pointer,
    levels_pointer,
    norm_pointer,
    given_pointer,
    unit_pointer,
    residual_pointer,
    out_pointer,
    parts_pointer,
    tickets_pointer,
    rows,
    outputs,
    inputs,
    group,
    groups,
    turns,
    eps,
    splits: tl.constexpr,
    shares: tl.constexpr,
    kind: tl.constexpr,
    alone: tl.constexpr,
    writes: tl.constexpr,
    normed: tl.constexpr,
    given: tl.constexpr,
    digits: tl.constexpr,
    whole: tl.constexpr,
    each: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    scaled: tl.constexpr,
    grouped: tl.constexpr,
    dtype: tl.constexpr,
    block_columns: tl.constexpr,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
    block_row: tl.constexpr,
    stretch: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """One block of outputs, and `turns` blocks of inputs.

    An output has `shares` rows, each over a stretch of inputs of its own. A row of inputs has
    `each` columns; one that is `alone` has them for every stretch, and each program `writes` them
    first for itself, unless they are the row as it is.
    """
    block = tl.program_id(0)
    row, column = tl.arange(0, block_outputs * shares), tl.arange(0, block_columns)
    packs: tl.constexpr = 1 if kind == 0 else 2
    sums: tl.constexpr = tl.int32 if dtype == tl.int8 and not grouped else tl.float32
    n = block * block_outputs + row // shares
    all_outputs = outputs * (2 if gated else 1)
    # where rows of the weight and columns of inputs begin, and which line a column is of
    first = tl.program_id(1) * shares * turns * block_inputs
    k = first + row % shares * turns * block_inputs
    start = first + column * 0
    line, there = column, (column < rows * each) & (column % each < max(1, digits))
    own = 0
    if alone:
        start += column // each * turns * block_inputs
        if writes:
            own = (tl.program_id(1) * tl.num_programs(0) + block) * each
        line = own + column % each
        there = (column % each < max(1, digits)) & (column // each < shares)
    total = tl.zeros((block_outputs * shares, block_columns), sums)
    gate = tl.zeros((block_outputs * shares, block_columns), sums)
    unit = 1.0
    norm = tl.full((block_row,), 1.0, tl.float32)
    if alone and normed:
        whole_row = tl.arange(0, block_row)
        norm = tl.load(norm_pointer + whole_row, mask=whole_row < inputs, other=0.0)
    # One row's inputs, and scales, are too small for the loop's own loads ahead: those of the next
    # turn are asked for here, before this one's are used.
    x = tl.zeros((block_inputs // packs, block_columns), x_pointer.dtype.element_ty)
    other = x
    scale, gate_scale = _scales(scale_pointer, n, k, outputs, inputs, group, groups, gated, grouped)
    if not alone:  # the loop's loads ahead are of inputs too
        turn(early)
    for number in range(turns):
        if not alone:
            x, other = _loaded(x_pointer, line, start, there, inputs, packs, block_inputs)
        elif number == 0:  # within the loop, since its loads of weights ahead come before that
            turn(early)
            if writes:
                unit = write_row(
                    row_pointer,
                    norm_pointer,
                    norm,
                    given_pointer,
                    x_pointer + own * inputs,
                    first,
                    inputs,
                    eps,
                    normed,
                    given,
                    digits,
                    whole,
                    packs,
                    block_row,
                    stretch,
                )
                if dtype != tl.float32:  # the interpreter has one thread
                    meet()
            x, other = _loaded(x_pointer, line, start, there, inputs, packs, block_inputs)
        gate_part = tl.zeros((block_outputs * shares, block_columns), sums)
        if kind == 0:
            part = _dense(weight_pointer, n, k, x.to(dtype), all_outputs, inputs, block_inputs)
            if gated:
                gate_part = _dense(
                    weight_pointer, n + outputs, k, x.to(dtype), all_outputs, inputs, block_inputs
                )
        else:
            part = _packed(
                weight_pointer,
                levels_pointer,
                n,
                k,
                x.to(dtype),
                other.to(dtype),
                all_outputs,
                inputs,
                kind,
                block_inputs,
            )
            if gated:
                gate_part = _packed(
                    weight_pointer,
                    levels_pointer,
                    n + outputs,
                    k,
                    x.to(dtype),
                    other.to(dtype),
                    all_outputs,
                    inputs,
                    kind,
                    block_inputs,
                )
        if grouped:
            part = part.to(tl.float32) * scale.to(tl.float32)[:, None]
            gate_part = gate_part.to(tl.float32) * gate_scale.to(tl.float32)[:, None]
        total += part
        if gated:
            gate += gate_part
        k += block_inputs
        start += block_inputs
        if alone:
            x, other = _loaded(x_pointer, line, start, there, inputs, packs, block_inputs)
        scale, gate_scale = _scales(
            scale_pointer, n, k, outputs, inputs, group, groups, gated, grouped
        )
    m = tl.arange(0, block_rows)
    n = block * block_outputs + tl.arange(0, block_outputs)
    sum_ = _gathered(total, row % shares, each, whole, shares, block_rows)
    gate_sum = _gathered(gate, row % shares, each, whole, shares, block_rows) if gated else sum_
    inside = (n[:, None] < outputs) & (m[None, :] < rows)
    where = m[None, :] * outputs + n[:, None]
    # asked for before sums are shared, which takes as long
    if scaled:
        scale = tl.load(scale_pointer + n, mask=n < outputs, other=0.0)
        if gated:
            gate_scale = tl.load(scale_pointer + outputs + n, mask=n < outputs, other=0.0)
    if added:
        residual = tl.load(residual_pointer + where, mask=inside, other=0.0)
    last = turns >= 0
    if splits > 1:
        ticket = tickets_pointer + block
        last, sum_, gate_sum = _shared(
            sum_, gate_sum, parts_pointer, ticket, n, m, inside, rows, outputs, splits, gated
        )
    if last:
        units = tl.full((block_rows,), 1.0, tl.float32) * unit
        if digits > 0 and not alone:
            units = tl.load(unit_pointer + m, mask=m < rows, other=0.0)
        if kind == 1:
            units *= SIXTEENTH
        sum_ *= units[None, :]
        if scaled:
            sum_ *= scale.to(tl.float32)[:, None]
        if gated:
            gate_sum *= units[None, :]
            if scaled:
                gate_sum *= gate_scale.to(tl.float32)[:, None]
            sum_ = sum_ / (1 + tl.exp(-sum_)) * gate_sum
        if added:
            sum_ += residual.to(tl.float32)
        tl.store(out_pointer + where, sum_.to(out_pointer.dtype.element_ty), mask=inside)
