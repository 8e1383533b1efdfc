"""The kernel of a product of few rows; `skinny` says what it computes, and launches it."""

from __future__ import annotations

import triton
import triton.language as tl

from quaver.nn.kernels.inputs import rounded_by, step_of
from quaver.nn.kernels.launch import turn

# One of the four in 16 bits as bf16, two at once: shifted, cut out, set into the bits of 128, which
# end in zeros, and less 136.
NIBBLES = tl.constexpr(
    tuple(
        "{ .reg .b32 t, one, less; mov.b32 one, 0x3F803F80; mov.b32 less, 0xC308C308; "
        f"shr.b32 t, $1, {4 * number}; lop3.b32 t, t, 0x000F000F, 0x43004300, 0xEA; "
        "fma.rn.bf16x2 $0, t, one, less; }"
        for number in range(4)
    )
)


@triton.jit
def _stats(
    x_pointer,
    norm_pointer,
    inputs,
    eps,
    normed: tl.constexpr,
    rounded: tl.constexpr,
    whole: tl.constexpr,
):
    """What one row is multiplied by in its norm, and then divided by to be rounded."""
    rms, step = 1.0, 1.0
    if normed:
        squares = tl.zeros((whole,), tl.float32)
        for first in range(0, inputs, whole):
            k = first + tl.arange(0, whole)
            x = tl.load(x_pointer + k, mask=k < inputs, other=0.0).to(tl.float32)
            squares += x * x
        rms = tl.rsqrt(tl.sum(squares, 0) / inputs + eps)
    if rounded:
        most = tl.zeros((whole,), tl.float32)
        for first in range(0, inputs, whole):
            x = _normed(x_pointer, norm_pointer, first + tl.arange(0, whole), inputs, rms, normed)
            most = tl.maximum(most, tl.abs(x.to(tl.float32)))
        step = step_of(tl.max(most, 0))
    return rms, step


@triton.jit
def _normed(x_pointer, norm_pointer, k, inputs, rms, normed: tl.constexpr):
    """Numbers k of one row."""
    x = tl.load(x_pointer + k, mask=k < inputs, other=0.0)
    if normed:
        weight = tl.load(norm_pointer + k, mask=k < inputs, other=0.0)
        x = (x.to(tl.float32) * rms * weight).to(x_pointer.dtype.element_ty)
    return x


@triton.jit
def _columns(
    x_pointer,
    held,
    m,
    k,
    rows,
    inputs,
    step,
    alone: tl.constexpr,
    rounded: tl.constexpr,
    dtype: tl.constexpr,
):
    """Columns k of x as they are multiplied, [k, rows]. Those of one row are `held` already."""
    if alone:  # every row of the product is this one, and the first is used
        x = held
        if rounded:
            x = rounded_by(x, step)
        x = tl.broadcast_to(x.to(dtype)[:, None], (k.shape[0], m.shape[0]))
    else:
        there = (m[:, None] < rows) & (k[None, :] < inputs)
        x = tl.load(x_pointer + m[:, None] * inputs + k[None, :], mask=there, other=0.0)
        x = tl.trans(x.to(dtype))
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
def _dense(pointer, n, first, x, rows, inputs, dtype: tl.constexpr, block_inputs: tl.constexpr):
    """Rows n of a weight of so many times inputs from `first` on, x [inputs, m] -> [n, m]."""
    k = first + tl.arange(0, block_inputs)
    inside = (n[:, None] < rows) & (k[None, :] < inputs)
    place = pointer + n[:, None].to(tl.int64) * inputs + k[None, :]
    return tl.dot(tl.load(place, mask=inside, other=0.0).to(dtype), x)


@triton.jit
def _packed(pointer, n, first, outputs, inputs, each: tl.constexpr, block_inputs: tl.constexpr):
    """The same rows and inputs of a packed weight as they lie, `each` to a number."""
    length = inputs // each
    k = first // each + tl.arange(0, block_inputs // each)
    inside = (n[:, None] < outputs) & (k[None, :] < length)
    place = pointer + n[:, None].to(tl.int64) * length + k[None, :]
    return tl.load(place, mask=inside, other=0)


@triton.jit
def _unpacked(
    packed, levels_pointer, number: tl.constexpr, kind: tl.constexpr, dtype: tl.constexpr
):
    """What lies at `number` in each: a whole number, or what an index stands for."""
    if kind == 2:
        index = packed.to(tl.int32)
        index = (index >> 4 if number == 0 else index) & 15
        return tl.load(levels_pointer + index).to(dtype)
    if dtype == tl.bfloat16:
        asm: tl.constexpr = NIBBLES[number]
        return tl.inline_asm_elementwise(
            asm, "=r,r", [packed], dtype=tl.bfloat16, is_pure=True, pack=2
        )
    return (((packed.to(tl.int32) >> (4 * number)) & 15) - 8).to(dtype)


@triton.jit
def _packed_turn(
    x_pointer,
    weight_pointer,
    levels_pointer,
    norm_pointer,
    n,
    m,
    first,
    rows,
    outputs,
    inputs,
    rms,
    kind: tl.constexpr,
    alone: tl.constexpr,
    normed: tl.constexpr,
    gated: tl.constexpr,
    dtype: tl.constexpr,
    block_inputs: tl.constexpr,
):
    """Rows n of a packed weight, and those that gate them, times inputs from `first` on: as many
    products as lie in a number, each with every so many-th input."""
    each: tl.constexpr = 4 if kind == 1 else 2
    count: tl.constexpr = block_inputs // each
    all_outputs = outputs * (2 if gated else 1)
    part = tl.zeros((n.shape[0], m.shape[0]), tl.float32)
    gate_part = part
    packed = _packed(weight_pointer, n, first, all_outputs, inputs, each, block_inputs)
    gate_packed = packed
    if gated:
        gate_rows = n + outputs
        gate_packed = _packed(
            weight_pointer, gate_rows, first, all_outputs, inputs, each, block_inputs
        )
    for place in tl.static_range(each):
        k = first + place + each * tl.arange(0, count)
        x = tl.zeros((count,), x_pointer.dtype.element_ty)
        if alone:
            x = _normed(x_pointer, norm_pointer, k, inputs, rms, normed)
        x = _columns(x_pointer, x, m, k, rows, inputs, 1.0, alone, False, dtype)
        part += tl.dot(_unpacked(packed, levels_pointer, place, kind, dtype), x)
        if gated:
            own = _unpacked(gate_packed, levels_pointer, place, kind, dtype)
            gate_part += tl.dot(own, x)
    return part, gate_part


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
    step_pointer,
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
    rounded: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    scaled: tl.constexpr,
    grouped: tl.constexpr,
    dtype: tl.constexpr,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
    whole: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """One block of outputs, one stretch of `turns` blocks of inputs."""
    block = tl.program_id(0)
    n = block * block_outputs + tl.arange(0, block_outputs)
    m = tl.arange(0, block_rows)
    all_outputs = outputs * (2 if gated else 1)
    rms, step = 1.0, 1.0
    total = tl.zeros((block_outputs, block_rows), tl.float32)
    gate = tl.zeros((block_outputs, block_rows), tl.float32)
    first = tl.program_id(1) * turns * block_inputs
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
        if alone:  # noqa: SIM102 - one is known when this is compiled
            if number == 0:  # within the loop, since its loads of weights ahead come before that
                turn(early)
                rms, step = _stats(x_pointer, norm_pointer, inputs, eps, normed, rounded, whole)
                if kind == 0:
                    held = _normed(x_pointer, norm_pointer, k, inputs, rms, normed)
        if kind == 0:
            x = _columns(x_pointer, held, m, k, rows, inputs, step, alone, rounded, dtype)
            if alone:
                held = _normed(x_pointer, norm_pointer, k + block_inputs, inputs, rms, normed)
            part = _dense(weight_pointer, n, first, x, all_outputs, inputs, dtype, block_inputs)
            gate_part = part
            if gated:
                gate_rows = n + outputs
                gate_part = _dense(
                    weight_pointer, gate_rows, first, x, all_outputs, inputs, dtype, block_inputs
                )
        else:
            part, gate_part = _packed_turn(
                x_pointer,
                weight_pointer,
                levels_pointer,
                norm_pointer,
                n,
                m,
                first,
                rows,
                outputs,
                inputs,
                rms,
                kind,
                alone,
                normed,
                gated,
                dtype,
                block_inputs,
            )
        if grouped:
            part *= scale.to(tl.float32)[:, None]
            gate_part *= gate_scale.to(tl.float32)[:, None]
        total += part
        if gated:
            gate += gate_part
        first += block_inputs
        scale, gate_scale = _scales(
            scale_pointer, n, first, outputs, inputs, group, groups, gated, grouped
        )
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
        last, total, gate = _shared(
            total, gate, parts_pointer, ticket, n, m, inside, rows, outputs, splits, gated
        )
    if last:
        steps = tl.full((block_rows,), 1.0, tl.float32) * step
        if rounded and not alone:
            steps = tl.load(step_pointer + m, mask=m < rows, other=0.0)
        total *= steps[None, :]
        if scaled:
            total *= scale.to(tl.float32)[:, None]
        if gated:
            gate *= steps[None, :]
            if scaled:
                gate *= gate_scale.to(tl.float32)[:, None]
            total = total / (1 + tl.exp(-total)) * gate
        if added:
            total += residual.to(tl.float32)
        tl.store(out_pointer + where, total.to(out_pointer.dtype.element_ty), mask=inside)
