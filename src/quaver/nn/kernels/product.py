"""The kernel of a product of few rows; `skinny` says what it computes, and launches it."""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.digits import gathered, spread, unit_of
from quaver.nn.kernels.launch import turn

# Four bytes at a time, the nibbles in their low or high halves: set into the high half, as whole
# numbers of 8 more than they are, and made signed by turning the highest bit over.
NIBBLES = tl.constexpr(
    (
        "{ .reg .b32 t; shl.b32 t, $1, 4; lop3.b32 $0, t, 0xF0F0F0F0, 0x80808080, 0x6A; }",
        "lop3.b32 $0, $1, 0xF0F0F0F0, 0x80808080, 0x6A;",
    )
)
SIXTEENTH = tl.constexpr(1 / 16)


@triton.jit
def _stats(
    x_pointer,
    weight,
    inputs,
    eps,
    normed: tl.constexpr,
    digits: tl.constexpr,
    whole: tl.constexpr,
    block: tl.constexpr,
):
    """What one row is multiplied by in its norm, and what its first digits are worth."""
    rms, unit = 1.0, 1.0
    if normed or digits > 0:
        k = tl.arange(0, block)
        x = tl.load(x_pointer + k, mask=k < inputs, other=0.0)
        if normed:
            wide = x.to(tl.float32)
            rms = tl.rsqrt(tl.sum(wide * wide, 0) / inputs + eps)
            x = (wide * rms * weight).to(x.dtype)
        if digits > 0:
            unit = unit_of(tl.max(tl.abs(x.to(tl.float32)), 0), digits, whole)
    return rms, unit


@triton.jit
def _normed(x_pointer, norm_pointer, k, inputs, rms, normed: tl.constexpr):
    """Numbers k of one row."""
    x = tl.load(x_pointer + k, mask=k < inputs, other=0.0)
    if normed:
        weight = tl.load(norm_pointer + k, mask=k < inputs, other=0.0)
        x = (x.to(tl.float32) * rms * weight).to(x_pointer.dtype.element_ty)
    return x


@triton.jit
def _scales(
    pointer, n, first, outputs, inputs, group, groups, gated: tl.constexpr, grouped: tl.constexpr
):
    """Of rows n, and of those that gate them, for the group of inputs that begins at `first`."""
    own = tl.full(n.shape, 1.0, tl.float32)
    gate = own
    if grouped:
        there = (n < outputs) & (first < inputs)
        own = tl.load(pointer + n * groups + first // group, mask=there, other=0.0)
        if gated:
            place = pointer + (n + outputs) * groups + first // group
            gate = tl.load(place, mask=there, other=0.0)
    return own, gate


@triton.jit
def _loaded(
    x_pointer, column, first, rows, inputs, each: tl.constexpr, block_inputs: tl.constexpr, part
):
    """Several rows' inputs from `first` on, [k, columns]; of two that share a byte, `part`."""
    count: tl.constexpr = block_inputs // each
    k = first // each + tl.arange(0, count)
    there = (column[:, None] < rows) & (k[None, :] < inputs // each)
    place = column[:, None] * inputs + part * (inputs // each) + k[None, :]
    return tl.trans(tl.load(x_pointer + place, mask=there, other=0.0))


@triton.jit
def _dense(pointer, n, first, x, outputs, inputs, block_inputs: tl.constexpr):
    """Rows n of a weight of so many times inputs from `first` on, x [inputs, columns]."""
    k = first + tl.arange(0, block_inputs)
    inside = (n[:, None] < outputs) & (k[None, :] < inputs)
    weight = tl.load(
        pointer + n[:, None].to(tl.int64) * inputs + k[None, :], mask=inside, other=0.0
    )
    if x.dtype != tl.float8e4nv:  # which is multiplied by both kinds of eight-bit floats
        weight = weight.to(x.dtype)
    return tl.dot(weight, x, out_dtype=tl.int32 if x.dtype == tl.int8 else tl.float32)


@triton.jit
def _unpacked(packed, levels_pointer, part: tl.constexpr, kind: tl.constexpr, dtype: tl.constexpr):
    """One of two that share a byte: 16 times a whole number, or what an index stands for."""
    if kind == 2:
        index = packed.to(tl.int32)
        index = (index >> 4 if part == 0 else index) & 15
        value = tl.load(levels_pointer + index).to(dtype)
    elif dtype == tl.int8:
        asm: tl.constexpr = NIBBLES[part]
        value = tl.inline_asm_elementwise(
            asm, "=r,r", [packed], dtype=tl.int8, is_pure=True, pack=4
        )
    else:
        value = ((((packed.to(tl.int32) >> (4 * part)) & 15) - 8) * 16).to(dtype)
    return value


@triton.jit
def _packed(
    pointer,
    levels_pointer,
    n,
    first,
    even,
    odd,
    outputs,
    inputs,
    kind: tl.constexpr,
    block_inputs: tl.constexpr,
):
    """The same for a weight with two to a byte, with every second input and the others."""
    k = first // 2 + tl.arange(0, block_inputs // 2)
    length = inputs // 2
    inside = (n[:, None] < outputs) & (k[None, :] < length)
    place = pointer + n[:, None].to(tl.int64) * length + k[None, :]
    packed = tl.load(place, mask=inside, other=0)
    sums: tl.constexpr = tl.int32 if even.dtype == tl.int8 else tl.float32
    part = tl.dot(_unpacked(packed, levels_pointer, 0, kind, even.dtype), even, out_dtype=sums)
    return tl.dot(_unpacked(packed, levels_pointer, 1, kind, odd.dtype), odd, part, out_dtype=sums)


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
    x_pointer,
    weight_pointer,
    scale_pointer,
    levels_pointer,
    norm_pointer,
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
    kind: tl.constexpr,
    alone: tl.constexpr,
    normed: tl.constexpr,
    digits: tl.constexpr,
    whole: tl.constexpr,
    each: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    scaled: tl.constexpr,
    grouped: tl.constexpr,
    dtype: tl.constexpr,
    block_columns: tl.constexpr,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
    block_row: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """One block of outputs, one stretch of `turns` blocks of inputs. A row of inputs has `each`
    columns."""
    block = tl.program_id(0)
    n = block * block_outputs + tl.arange(0, block_outputs)
    column = tl.arange(0, block_columns)
    all_outputs = outputs * (2 if gated else 1)
    packs: tl.constexpr = 1 if kind == 0 else 2
    sums: tl.constexpr = tl.int32 if dtype == tl.int8 and not grouped else tl.float32
    total = tl.zeros((block_outputs, block_columns), sums)
    gate = tl.zeros((block_outputs, block_columns), sums)
    first = tl.program_id(1) * turns * block_inputs
    rms, unit = 1.0, 1.0
    norm = tl.zeros((block_row,), tl.float32)
    if alone and normed:
        whole_row = tl.arange(0, block_row)
        norm = tl.load(norm_pointer + whole_row, mask=whole_row < inputs, other=0.0)
    # One row's inputs, and scales, are too small for the loop's own loads ahead: those of the next
    # turn are asked for here, before this one's are used.
    held = tl.zeros((block_inputs,), x_pointer.dtype.element_ty)
    scale, gate_scale = _scales(
        scale_pointer, n, first, outputs, inputs, group, groups, gated, grouped
    )
    if not alone:  # the loop's loads ahead are of inputs too
        turn(early)
    for number in range(turns):
        k = first + tl.arange(0, block_inputs)
        if alone:
            if number == 0:  # within the loop, since its loads of weights ahead come before that
                turn(early)
                rms, unit = _stats(x_pointer, norm, inputs, eps, normed, digits, whole, block_row)
                held = _normed(x_pointer, norm_pointer, k, inputs, rms, normed)
            if packs == 1:
                x = spread(held, unit, column, digits, whole).to(dtype)
                other = x
            else:
                x, other = tl.split(tl.reshape(held, (block_inputs // 2, 2)))
                x = spread(x, unit, column, digits, whole).to(dtype)
                other = spread(other, unit, column, digits, whole).to(dtype)
            held = _normed(x_pointer, norm_pointer, k + block_inputs, inputs, rms, normed)
        else:
            x = _loaded(x_pointer, column, first, rows * each, inputs, packs, block_inputs, 0)
            x = x.to(dtype)
            other = x
            if packs == 2:
                other = _loaded(x_pointer, column, first, rows * each, inputs, 2, block_inputs, 1)
                other = other.to(dtype)
        gate_part = tl.zeros((block_outputs, block_columns), sums)
        if kind == 0:
            part = _dense(weight_pointer, n, first, x, all_outputs, inputs, block_inputs)
            if gated:
                gate_part = _dense(
                    weight_pointer, n + outputs, first, x, all_outputs, inputs, block_inputs
                )
        else:
            part = _packed(
                weight_pointer,
                levels_pointer,
                n,
                first,
                x,
                other,
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
                    first,
                    x,
                    other,
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
        first += block_inputs
        scale, gate_scale = _scales(
            scale_pointer, n, first, outputs, inputs, group, groups, gated, grouped
        )
    m = tl.arange(0, block_columns // each)
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
    last = first >= 0
    if splits > 1:
        ticket = tickets_pointer + block
        last, sum_, gate_sum = _shared(
            sum_, gate_sum, parts_pointer, ticket, n, m, inside, rows, outputs, splits, gated
        )
    if last:
        units = tl.full((block_columns // each,), 1.0, tl.float32) * unit
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
