"""Decode attention that reads keys and values as they are kept: one new position a stream.

One launch turns queries and the new key by the position, encodes what is new into the cache, and
lets each stream's queries look at all that the stream has. Keys and values are multiplied by tensor
cores as they lie, in the bits they are kept in: positions and numbers of a head are a product's
rows, and the queries that share keys, or the digits of those (`nn.kernels.digits`), its columns. So
are the weights of the softmax. Lengths are read on the device.
A stream's positions are split among as many programs as keep the GPU busy; the one that is done
last joins their partial softmaxes (as in flash decoding; Dao et al., 2023), always in one order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.engine.keeping import KeptLayer
from quaver.engine.kernels.columns import filled, numbers, repeated, written
from quaver.nn.kernels.digits import FLOATS, PLAIN, Digits, first_digit, unit_of
from quaver.nn.kernels.launch import on, processors, splits_of, starting_early, tickets, turn

MOST_SPLITS = 32  # of a stream's positions
LEAST_COLUMNS = tl.constexpr(16)  # of a product on tensor cores
ALIGNED = tl.constexpr(16)  # positions of one load
SHARE = tl.constexpr(2.0**-8)  # of a softmax, what one is worth in the first digit
LOG2_E = 1.4426950408889634


class Shape(NamedTuple):
    """How attention is cut."""

    positions: int  # of one turn of a program's loop
    warps: int
    stages: int  # of the loop's loads
    programs: int  # a multiprocessor, about


# Of what was tried on an H200, the fastest: for keys and values of eight bits, of few streams and
# of many, and for those of more bits.
FEW, MANY, HALVES = Shape(256, 8, 2, 1), Shape(128, 4, 3, 2), Shape(128, 8, 2, 2)


@triton.jit
def turned(pointer, cos, sin, columns, rows, there, d: tl.constexpr) -> tl.tensor:
    """Rows of heads [rows, d] turned by their position; see `nn.rope`."""
    own = tl.load(pointer + rows + columns[None, :], mask=there, other=0.0)
    # each number's partner in the other half
    other = tl.load(pointer + rows + ((columns + d // 2) % d)[None, :], mask=there, other=0.0)
    x = own.to(tl.float32) * cos[None, :] + other.to(tl.float32) * sin[None, :]
    return x.to(pointer.dtype.element_ty)


@triton.jit
def keep(
    x, place, steps_pointer, step_place, inverse, largest: tl.constexpr, whole: tl.constexpr
) -> tl.tensor:
    """Encode one head's new key or value [1, d] into the cache; returns what its elements stand
    for, but for a factor of all, [1, d]."""
    x = x.to(tl.float32)
    step = tl.full((1,), 1.0, tl.float32)
    if whole:
        # the step is rounded before anything is divided by it; bf16's smallest normal number
        step = (tl.max(tl.abs(x), 1) * (1 / 127)).to(tl.bfloat16).to(tl.float32)
        step = tl.maximum(step, 1.1754943508222875e-38)
        tl.store(steps_pointer + step_place + tl.arange(0, 1), step.to(tl.bfloat16))
        x = first_digit(tl.div_rn(x, tl.broadcast_to(step[:, None], x.shape)), whole)
    elif largest > 0:  # a float8; 0 stands for a dense format
        x = tl.minimum(tl.maximum(x * inverse, -largest), largest)
    x = x.to(place.dtype.element_ty)
    tl.store(place, x)
    return x.to(tl.float32) * step[:, None]


@triton.jit
def _new(
    qkv,
    cos,
    sin,
    keys_pointer,
    values_pointer,
    key_steps_pointer,
    value_steps_pointer,
    key_place,
    value_place,
    step_place,
    column_stride,
    head,
    heads,
    head_stride,
    key_factor,
    key_inverse,
    value_inverse,
    group: tl.constexpr,
    block_heads: tl.constexpr,
    d: tl.constexpr,
    largest: tl.constexpr,
    whole: tl.constexpr,
):
    """Keep the new position, which is never read back: softmax starts with it. Its scores [heads]
    and values [d, heads]."""
    columns = tl.arange(0, d)
    one = tl.arange(0, 1)[:, None]
    rows = tl.arange(0, block_heads)[:, None]
    q = turned(qkv, cos, sin, columns, (head * group + rows) * head_stride, rows < group, d)
    k = turned(qkv, cos, sin, columns, (heads * group + head + one) * head_stride, one == 0, d)
    v = tl.load(qkv + (heads * (group + 1) + head + one) * head_stride + columns[None, :])
    keys = keys_pointer + key_place + columns[None, :]
    values = values_pointer + value_place + columns[None, :] * column_stride
    k = keep(k, keys, key_steps_pointer, step_place, key_inverse, largest, whole)
    v = keep(v, values, value_steps_pointer, step_place, value_inverse, largest, whole)
    scores = tl.sum(q.to(tl.float32) * k, 1) * key_factor
    return scores, tl.broadcast_to(tl.trans(v), (d, block_heads))


@triton.jit
def _join(
    out_pointer,
    parts_pointer,
    sums_pointer,
    pair,
    value_factor,
    splits: tl.constexpr,
    group: tl.constexpr,
    d: tl.constexpr,
    joined: tl.constexpr,
):
    """What all programs of a pair have found, as one softmax. Numbers of all heads lie in a row:
    nothing is exchanged between threads."""
    flat = tl.arange(0, joined)
    known = flat < group * d
    part = parts_pointer + pair * splits * group * d + flat
    mine = sums_pointer + 2 * (pair * splits * group + flat // d)
    highest = tl.full((joined,), -1e30, tl.float32)
    for one in tl.static_range(splits):  # unrolled: they are all asked for at once
        high = tl.load(mine + 2 * one * group, known, -1e30, cache_modifier=".cg")
        highest = tl.maximum(highest, high)
    total = tl.zeros((joined,), tl.float32)
    below = tl.zeros((joined,), tl.float32)
    for one in tl.static_range(splits):
        high = tl.load(mine + 2 * one * group, known, -1e30, cache_modifier=".cg")
        share = tl.exp2(high - highest)
        below += share * tl.load(mine + 2 * one * group + 1, known, 0.0, cache_modifier=".cg")
        total += share * tl.load(part + one * group * d, known, 0.0, cache_modifier=".cg")
    y = total * value_factor / below
    tl.store(out_pointer + pair * group * d + flat, y.to(out_pointer.dtype.element_ty), known)


@triton.jit(do_not_specialize=["moved"])
def _attend(
    qkv_pointer,
    cos_pointer,
    sin_pointer,
    keys_pointer,
    values_pointer,
    key_steps_pointer,
    value_steps_pointer,
    lengths_pointer,
    parts_pointer,
    sums_pointer,
    tickets_pointer,
    out_pointer,
    stream_stride,
    head_stride,
    value_stride,
    column_stride,
    position_stride,
    key_factor,
    value_factor,
    key_inverse,
    value_inverse,
    heads,
    max_length,
    moved,
    turns,
    splits: tl.constexpr,
    group: tl.constexpr,
    d: tl.constexpr,
    largest: tl.constexpr,
    whole: tl.constexpr,
    digits: tl.constexpr,
    each: tl.constexpr,
    dtype: tl.constexpr,
    block_heads: tl.constexpr,
    block: tl.constexpr,
    joined: tl.constexpr,
    early: tl.constexpr,
):
    """The query heads of one key head of one stream, over one stretch of its positions. A head has
    `each` columns.

    Parts are [streams * heads, splits, group, d] before division by the sums, and sums are
    [streams * heads, splits, group, 2]: the largest score and the sum of exp2(score - largest).
    """
    pair, split = tl.program_id(0), tl.program_id(1)
    stream, head = pair // heads, pair % heads
    rows, columns = tl.arange(0, block_heads), tl.arange(0, d)
    owner = tl.arange(0, block_heads * each)[:, None] // each
    times: tl.constexpr = max(1, LEAST_COLUMNS // (block_heads * each))
    qkv = qkv_pointer + stream * stream_stride
    position = tl.load(lengths_pointer + stream) + moved
    cos = tl.load(cos_pointer + position * d + columns)
    sin = tl.load(sin_pointer + position * d + columns)
    first = pair.to(tl.int64) * max_length
    own_values = values_pointer + pair.to(tl.int64) * value_stride
    start = split * turns * block
    stop = tl.minimum(start + turns * block, position)
    known = (stop + ALIGNED - 1) // ALIGNED * ALIGNED  # what comes after has no weight
    sums_of: tl.constexpr = tl.int32 if dtype == tl.int8 else tl.float32
    q = tl.zeros((d, times * block_heads * each), dtype)
    unit = tl.zeros((block_heads,), tl.float32)
    total = tl.zeros((d, block_heads), tl.float32)
    # a number, not -inf: a stretch without positions must not make NaN
    most = tl.full((block_heads,), -1e30, tl.float32)
    sums = tl.zeros((block, block_heads), tl.float32)  # added up at the end
    # once at least: what must wait is in the loop, whose loads ahead come before that
    for begin in range(start, tl.maximum(stop, start + 1), block):
        if begin == start:
            turn(early)
            place = (head * group + owner) * head_stride
            asking = turned(qkv, cos, sin, columns, place, owner < group, d).to(tl.float32)
            units = tl.full((block_heads * each,), 1.0, tl.float32)
            if digits > 0:
                units = unit_of(tl.max(tl.abs(asking), 1), digits, whole)
            unit = tl.max(tl.reshape(units, (block_heads, each)), 1) * key_factor
            asked = written(tl.trans(asking), units[None, :], digits, whole, each)
            q = filled(asked, times, whole).to(dtype)
            if (start <= position) & (position < start + turns * block):
                most, total = _new(
                    qkv,
                    cos,
                    sin,
                    keys_pointer,
                    own_values,
                    key_steps_pointer,
                    value_steps_pointer,
                    (first + position) * d,
                    position * position_stride,
                    first + position,
                    column_stride,
                    head,
                    heads,
                    head_stride,
                    key_factor,
                    key_inverse,
                    value_inverse,
                    group,
                    block_heads,
                    d,
                    largest,
                    whole,
                )
                sums += tl.where(tl.arange(0, block)[:, None] == 0, 1.0, 0.0)
        positions = begin + tl.arange(0, block)
        inside = positions < stop
        place = keys_pointer + (first + positions)[:, None] * d + columns[None, :]
        keys = tl.load(place, mask=inside[:, None], other=0.0)
        if dtype != tl.float8e4nv:  # which is multiplied by both kinds of eight-bit floats
            keys = keys.to(dtype)
        found = tl.dot(keys, q, out_dtype=sums_of)
        scores = numbers(found, times, each, whole) * unit[None, :]
        if whole:
            steps = tl.load(key_steps_pointer + first + positions, mask=inside, other=0.0)
            scores *= steps.to(tl.float32)[:, None]
        scores = tl.where(inside[:, None], scores, -1e30)
        before, most = most, tl.maximum(most, tl.max(scores, 0))
        weights = tl.where(inside[:, None], tl.exp2(scores - most[None, :]), 0.0)
        shrink = tl.exp2(before - most)
        sums = sums * shrink[None, :] + weights
        worth = tl.full((block_heads,), 1.0, tl.float32)
        if whole:
            steps = tl.load(value_steps_pointer + first + positions, mask=inside, other=0.0)
            weights *= steps.to(tl.float32)[:, None]
            worth = unit_of(tl.max(weights, 0), digits, whole)
        elif digits > 0:
            worth = tl.full((block_heads,), SHARE, tl.float32)
        shares = repeated(weights, each)
        shares = written(shares, repeated(worth[None, :], each), digits, whole, each)
        place = own_values + columns[:, None] * column_stride + positions[None, :] * position_stride
        values = tl.load(place, mask=(positions < known)[None, :], other=0.0)
        if dtype != tl.float8e4nv:
            values = values.to(dtype)
        found = tl.dot(values, filled(shares, times, whole).to(dtype), out_dtype=sums_of)
        part = numbers(found, times, each, whole) * worth[None, :]
        total = total * shrink[None, :] + part
    below = tl.sum(sums, 0)
    there = rows[None, :] < group
    if splits == 1:
        y = total * value_factor / below[None, :]
        out = out_pointer + (pair * group + rows)[None, :] * d + columns[:, None]
        tl.store(out, y.to(out_pointer.dtype.element_ty), mask=there)
    else:
        row = (pair * splits + split) * group + rows
        tl.store(parts_pointer + row[None, :] * d + columns[:, None], total, mask=there)
        tl.store(sums_pointer + 2 * row, most, mask=rows < group)
        tl.store(sums_pointer + 2 * row + 1, below, mask=rows < group)
        tl.debug_barrier()
        if tl.atomic_add(tickets_pointer + pair, 1, sem="acq_rel") == splits - 1:
            tl.store(tickets_pointer + pair, 0)
            _join(
                out_pointer,
                parts_pointer,
                sums_pointer,
                pair,
                value_factor,
                splits,
                group,
                d,
                joined,
            )


def attend(
    qkv: Tensor, rope: tuple[Tensor, Tensor], kept: KeptLayer, limit: int, moved: int = 0
) -> Tensor:
    """qkv [n, heads + 2 kv_heads, 1, d] of the first n streams, and cosines and sines
    [positions, d]: keep what is new `moved` positions beyond the streams' lengths, and let queries
    look at all up to there, none of it at or beyond `limit` -> [n, heads, 1, d]."""
    n, all_heads, _, d = qkv.shape
    kv_heads, max_length = kept.keys.shape[1:3]
    heads = all_heads - 2 * kv_heads
    group = heads // kv_heads
    kind = kept.keys.dtype
    shape = _shape_of(kind, n * kv_heads, qkv.device)
    blocks = triton.cdiv(limit, shape.positions)
    splits = splits_of(blocks, n * kv_heads, shape.programs, MOST_SPLITS, qkv.device)
    turns = triton.cdiv(blocks, splits)
    splits = triton.cdiv(blocks, turns)
    parts = qkv.new_empty((n * kv_heads, splits, group, d), dtype=torch.float32)
    sums = qkv.new_empty((n * kv_heads, splits, group, 2), dtype=torch.float32)
    out = torch.empty((n, heads, 1, d), dtype=qkv.dtype, device=qkv.device)
    digits = _digits(kind)
    with on(qkv.device):
        _attend[(n * kv_heads, splits)](
            qkv,
            *rope,
            kept.keys,
            kept.values,
            kept.key_steps,
            kept.value_steps,
            kept.lengths,
            parts,
            sums,
            tickets(qkv.device),
            out,
            qkv.stride(0),
            qkv.stride(1),
            kept.values.stride(1),
            kept.values.stride(3),
            kept.values.stride(2),
            kept.key_scale * LOG2_E / d**0.5,
            kept.value_scale,
            1 / kept.key_scale,
            1 / kept.value_scale,
            kv_heads,
            max_length,
            moved,
            turns,
            splits=splits,
            group=group,
            d=d,
            largest=largest_of(kind),
            whole=digits.whole,
            digits=digits.count,
            each=digits.columns,
            dtype=_dtype(kind, qkv.is_cuda),
            block_heads=triton.next_power_of_2(group),
            block=shape.positions,
            joined=triton.next_power_of_2(group) * d,
            num_warps=shape.warps,
            num_stages=shape.stages,
            **starting_early(qkv.device),
        )
    return out


def _shape_of(kind: torch.dtype, pairs: int, device: torch.device) -> Shape:
    """How attention of so many key heads of streams is cut."""
    if kind.itemsize > 1:
        return HALVES
    return FEW if 4 * pairs <= processors(device) else MANY


def largest_of(kind: torch.dtype) -> float:
    """Of a float of eight bits; 0 stands for other kinds."""
    return torch.finfo(kind).max if kind.is_floating_point and kind.itemsize == 1 else 0.0


def _digits(kind: torch.dtype) -> Digits:
    """How queries and weights are written for keys and values of a kind."""
    if kind is torch.int8:
        return Digits(2, whole=True)  # 14 bits of the largest
    return FLOATS if kind.itemsize == 1 else PLAIN


def _dtype(kind: torch.dtype, gpu: bool) -> tl.dtype:
    """What queries and weights are multiplied as."""
    if not gpu:
        return tl.float32  # Triton's interpreter has no products of bf16
    if kind is torch.int8:
        return tl.int8
    if kind.itemsize == 1:
        return tl.float8e4nv
    return tl.float16 if kind is torch.float16 else tl.bfloat16
