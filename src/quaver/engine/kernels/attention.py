"""Decode attention that reads keys and values as they are kept: one new position a stream.

One launch turns queries and the new key by the position, encodes what is new into the cache, and
lets each stream's queries look at all that the stream has. The heads that share keys are the rows
of one product, so keys are read once, in the bits they are kept in. Lengths are read on the device.
A stream's positions are split among as many programs as keep the GPU busy; the one that is done
last joins their partial softmaxes (as in flash decoding; Dao et al., 2023), always in one order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.engine.keeping import KeptLayer
from quaver.nn.kernels.launch import on, starting_early, tickets, turn

POSITIONS = 128  # of one turn of a program's loop
WARPS = 8
PROGRAMS = 2  # a multiprocessor, about
MOST_SPLITS = 32  # of a stream's positions
LEAST_ROWS = 16  # of a product on tensor cores
LOG2_E = 1.4426950408889634


@triton.jit
def _turned(pointer, cos, sin, columns, rows, there, d: tl.constexpr):
    """Rows of heads [rows, d] turned by their position; see `nn.rope`."""
    own = tl.load(pointer + rows + columns[None, :], mask=there, other=0.0)
    # each number's partner in the other half
    other = tl.load(pointer + rows + ((columns + d // 2) % d)[None, :], mask=there, other=0.0)
    x = own.to(tl.float32) * cos[None, :] + other.to(tl.float32) * sin[None, :]
    return x.to(pointer.dtype.element_ty)


@triton.jit
def _keep(x, elements_pointer, steps_pointer, place, columns, inverse, d, largest, whole):
    """Encode one head's new key or value [1, d] into the cache, at position `place` of all; returns
    what its elements stand for, but for a factor of all, [1, d]."""
    x = x.to(tl.float32)
    step = 1.0
    if whole:
        # the step is rounded before anything is divided by it; bf16's smallest normal number
        step = (tl.max(tl.abs(x), 1) * (1 / 127)).to(tl.bfloat16).to(tl.float32)
        step = tl.maximum(step, 1.1754943508222875e-38)
        tl.store(steps_pointer + place + tl.arange(0, 1), step.to(tl.bfloat16))
        step = step[:, None]
        x = tl.div_rn(x, step)
        # to the nearest, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction
        x = (x + 12582912.0) - 12582912.0
        x = tl.minimum(tl.maximum(x, -127.0), 127.0)
    elif largest > 0:  # a float8; 0 stands for a dense format
        x = tl.minimum(tl.maximum(x * inverse, -largest), largest)
    x = x.to(elements_pointer.dtype.element_ty)
    tl.store(elements_pointer + place * d + columns[None, :], x)
    return x.to(tl.float32) * step


@triton.jit
def _new(
    qkv,
    cos,
    sin,
    q,
    keys_pointer,
    values_pointer,
    key_steps_pointer,
    value_steps_pointer,
    place,
    head,
    heads,
    head_stride,
    key_factor,
    key_inverse,
    value_inverse,
    group: tl.constexpr,
    d: tl.constexpr,
    largest: tl.constexpr,
    whole: tl.constexpr,
):
    """Keep the new position, which is never read back: softmax starts with it. Its largest score,
    sum and weighted values."""
    columns = tl.arange(0, d)
    one = tl.arange(0, 1)[:, None]
    k_row = (heads * group + head + one) * head_stride
    k = _turned(qkv, cos, sin, columns, k_row, one == 0, d)
    v = tl.load(qkv + (heads * (group + 1) + head + one) * head_stride + columns[None, :])
    k = _keep(k, keys_pointer, key_steps_pointer, place, columns, key_inverse, d, largest, whole)
    v = _keep(
        v, values_pointer, value_steps_pointer, place, columns, value_inverse, d, largest, whole
    )
    most = tl.sum(q.to(tl.float32) * k, 1) * key_factor
    return most, tl.full(most.shape, 1.0, tl.float32), tl.broadcast_to(v, q.shape)


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


@triton.jit
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
    key_factor,
    value_factor,
    key_inverse,
    value_inverse,
    heads,
    max_length,
    turns,
    splits: tl.constexpr,
    group: tl.constexpr,
    d: tl.constexpr,
    largest: tl.constexpr,
    whole: tl.constexpr,
    dtype: tl.constexpr,
    block_rows: tl.constexpr,
    block: tl.constexpr,
    joined: tl.constexpr,
    early: tl.constexpr,
):
    """The query heads of one key head of one stream, over one stretch of its positions.

    Parts are [streams * heads, splits, group, d] before division by the sums, and sums are
    [streams * heads, splits, group, 2]: the largest score and the sum of exp2(score - largest).
    """
    pair, split = tl.program_id(0), tl.program_id(1)
    stream, head = pair // heads, pair % heads
    rows, columns = tl.arange(0, block_rows), tl.arange(0, d)
    there = rows[:, None] < group
    qkv = qkv_pointer + stream * stream_stride
    position = tl.load(lengths_pointer + stream)
    cos = tl.load(cos_pointer + position * d + columns)
    sin = tl.load(sin_pointer + position * d + columns)
    first = pair.to(tl.int64) * max_length
    start = split * turns * block
    stop = tl.minimum(start + turns * block, position)
    q = tl.zeros((block_rows, d), dtype)
    total = tl.zeros((block_rows, d), tl.float32)
    # a number, not -inf: a stretch without positions must not make NaN
    most = tl.full((block_rows,), -1e30, tl.float32)
    sums = tl.zeros((block_rows,), tl.float32)
    # once at least: what must wait is in the loop, whose loads ahead come before that
    for begin in range(start, tl.maximum(stop, start + 1), block):
        if begin == start:
            turn(early)
            q_rows = (head * group + rows[:, None]) * head_stride
            q = _turned(qkv, cos, sin, columns, q_rows, there, d).to(dtype)
            if (start <= position) & (position < start + turns * block):
                most, sums, total = _new(
                    qkv,
                    cos,
                    sin,
                    q,
                    keys_pointer,
                    values_pointer,
                    key_steps_pointer,
                    value_steps_pointer,
                    first + position,
                    head,
                    heads,
                    head_stride,
                    key_factor,
                    key_inverse,
                    value_inverse,
                    group,
                    d,
                    largest,
                    whole,
                )
        positions = begin + tl.arange(0, block)
        inside = positions < stop
        place = (first + positions)[:, None] * d + columns[None, :]
        keys = tl.load(keys_pointer + place, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(keys.to(dtype))) * key_factor
        if whole:
            steps = tl.load(key_steps_pointer + first + positions, mask=inside, other=0.0)
            scores *= steps.to(tl.float32)[None, :]
        scores = tl.where(inside[None, :], scores, -1e30)
        before, most = most, tl.maximum(most, tl.max(scores, 1))
        weights = tl.where(inside[None, :], tl.exp2(scores - most[:, None]), 0.0)
        shrink = tl.exp2(before - most)
        sums = sums * shrink + tl.sum(weights, 1)
        if whole:
            steps = tl.load(value_steps_pointer + first + positions, mask=inside, other=0.0)
            weights *= steps.to(tl.float32)[None, :]
        values = tl.load(values_pointer + place, mask=inside[:, None], other=0.0)
        total = total * shrink[:, None] + tl.dot(weights.to(dtype), values.to(dtype))
    out = out_pointer + (pair * group + rows)[:, None] * d + columns[None, :]
    if splits == 1:
        y = total * value_factor / sums[:, None]
        tl.store(out, y.to(out_pointer.dtype.element_ty), mask=there)
    else:
        row = (pair * splits + split) * group + rows
        tl.store(parts_pointer + row[:, None] * d + columns[None, :], total, mask=there)
        tl.store(sums_pointer + 2 * row, most, mask=rows < group)
        tl.store(sums_pointer + 2 * row + 1, sums, mask=rows < group)
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


def attend(qkv: Tensor, rope: tuple[Tensor, Tensor], kept: KeptLayer, limit: int) -> Tensor:
    """qkv [n, heads + 2 kv_heads, 1, d] of the first n streams, and cosines and sines
    [positions, d]: keep what is new at the streams' lengths, and let queries look
    at those and the new position, none of them at or beyond `limit` -> [n, heads, 1, d]."""
    n, all_heads, _, d = qkv.shape
    kv_heads, max_length = kept.keys.shape[1:3]
    heads = all_heads - 2 * kv_heads
    group = heads // kv_heads
    blocks = triton.cdiv(limit, POSITIONS)
    turns = triton.cdiv(blocks, _splits(n * kv_heads, blocks, qkv.device))
    splits = triton.cdiv(blocks, turns)
    parts = qkv.new_empty((n * kv_heads, splits, group, d), dtype=torch.float32)
    sums = qkv.new_empty((n * kv_heads, splits, group, 2), dtype=torch.float32)
    out = torch.empty((n, heads, 1, d), dtype=qkv.dtype, device=qkv.device)
    kind = kept.keys.dtype
    half = tl.float16 if kind is torch.float16 else tl.bfloat16
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
            kept.key_scale * LOG2_E / d**0.5,
            kept.value_scale,
            1 / kept.key_scale,
            1 / kept.value_scale,
            kv_heads,
            max_length,
            turns,
            splits=splits,
            group=group,
            d=d,
            largest=torch.finfo(kind).max if kind.is_floating_point and kind.itemsize == 1 else 0.0,
            whole=kept.key_steps is not None,
            # Triton's interpreter has no products of bf16
            dtype=half if qkv.is_cuda else tl.float32,
            block_rows=max(LEAST_ROWS, triton.next_power_of_2(group)),
            block=POSITIONS,
            joined=triton.next_power_of_2(group) * d,
            num_warps=WARPS,
            **starting_early(qkv.device),
        )
    return out


def _splits(programs: int, blocks: int, device: torch.device) -> int:
    """Into how many stretches positions are cut, so that all multiprocessors have work."""
    if device.type != "cuda":
        return min(2, blocks)  # Triton's interpreter, where only the result counts
    wanted = PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(wanted // programs, blocks, MOST_SPLITS))
