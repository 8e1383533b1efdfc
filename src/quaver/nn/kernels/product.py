"""The kernel of a product of a few rows; `skinny` says what it computes, and launches it."""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.digits import gathered
from quaver.nn.kernels.launch import turn
from quaver.nn.kernels.unpack import SIXTEENTH, unpacked


@triton.jit
def _scales(
    pointer, n, k, outputs, inputs, group, groups, gated: tl.constexpr, grouped: tl.constexpr
):
    """Of rows n, and of those that gate them, for the group of inputs k."""
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
def _loaded(x_pointer, column, there, start, inputs, packs: tl.constexpr, block: tl.constexpr):
    """Columns of `block` inputs from `start` on, [k, columns]; or those that meet the first of two
    weights in a byte, and those that meet the second."""
    length = inputs // packs
    k = start // packs + tl.arange(0, block // packs)
    inside = there[:, None] & (k < length)[None, :]
    place = x_pointer + column[:, None] * inputs + k[None, :]
    x = tl.trans(tl.load(place, mask=inside, other=0.0))
    other = x
    if packs == 2:
        other = tl.trans(tl.load(place + length, mask=inside, other=0.0))
    return x, other


@triton.jit
def _multiplied(
    pointer,
    levels_pointer,
    n,
    start,
    x,
    other,
    outputs,
    inputs,
    kind: tl.constexpr,
    block_inputs: tl.constexpr,
):
    """Rows n of a weight from `start` on, times so many inputs, [n, columns]."""
    packs: tl.constexpr = 1 if kind == 0 else 2
    sums: tl.constexpr = tl.int32 if x.dtype == tl.int8 else tl.float32
    k = start // packs + tl.arange(0, block_inputs // packs)
    length = inputs // packs
    inside = (n[:, None] < outputs) & (k < length)[None, :]
    place = pointer + n[:, None].to(tl.int64) * length + k[None, :]
    weight = tl.load(place, mask=inside, other=0.0 if packs == 1 else 0)
    if packs == 1:
        if x.dtype != tl.float8e4nv:  # which is multiplied by both kinds of eight-bit floats
            weight = weight.to(x.dtype)
        part = tl.dot(weight, x, out_dtype=sums)
    else:
        first = unpacked(weight, levels_pointer, 0, kind, x.dtype)
        second = unpacked(weight, levels_pointer, 1, kind, x.dtype)
        part = tl.dot(second, other, tl.dot(first, x, out_dtype=sums), out_dtype=sums)
    return part


@triton.jit
def shared(
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
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
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
    x_pointer,
    weight_pointer,
    scale_pointer,
    levels_pointer,
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
    splits: tl.constexpr,
    kind: tl.constexpr,
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
    early: tl.constexpr,
) -> None:
    """One block of outputs, and `turns` blocks of inputs, a row of which has `each` columns."""
    block = tl.program_id(0)
    column = tl.arange(0, block_columns)
    there = (column < rows * each) & (column % each < max(1, digits))
    packs: tl.constexpr = 1 if kind == 0 else 2
    sums: tl.constexpr = tl.int32 if dtype == tl.int8 and not grouped else tl.float32
    n = block * block_outputs + tl.arange(0, block_outputs)
    all_outputs = outputs * (2 if gated else 1)
    k = tl.program_id(1) * turns * block_inputs
    total = tl.zeros((block_outputs, block_columns), sums)
    gate = tl.zeros((block_outputs, block_columns), sums)
    # Scales are too small for the loop's own loads ahead: those of the next turn are asked for
    # before this one's are used.
    scale, gate_scale = _scales(scale_pointer, n, k, outputs, inputs, group, groups, gated, grouped)
    turn(early)
    for _ in range(turns):
        x, other = _loaded(x_pointer, column, there, k, inputs, packs, block_inputs)
        x, other = x.to(dtype), other.to(dtype)
        part = _multiplied(
            weight_pointer, levels_pointer, n, k, x, other, all_outputs, inputs, kind, block_inputs
        )
        if grouped:
            part = part.to(tl.float32) * scale.to(tl.float32)[:, None]
        total += part
        if gated:
            part = _multiplied(
                weight_pointer,
                levels_pointer,
                n + outputs,
                k,
                x,
                other,
                all_outputs,
                inputs,
                kind,
                block_inputs,
            )
            if grouped:
                part = part.to(tl.float32) * gate_scale.to(tl.float32)[:, None]
            gate += part
        k += block_inputs
        scale, gate_scale = _scales(
            scale_pointer, n, k, outputs, inputs, group, groups, gated, grouped
        )
    m = tl.arange(0, block_rows)
    sum_ = gathered(total, each, whole)
    gate_sum = gathered(gate, each, whole) if gated else sum_
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
        last, sum_, gate_sum = shared(
            sum_, gate_sum, parts_pointer, ticket, n, m, inside, rows, outputs, splits, gated
        )
    if last:
        units = tl.full((block_rows,), 1.0, tl.float32)
        if digits > 0:
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
