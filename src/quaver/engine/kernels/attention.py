"""Decode attention that reads keys and values as they are kept: one new position a stream.

`append` encodes what is new into the cache; `attend` lets each stream's query look at all that the
stream has. The heads that share keys are the rows of one product, so keys are read once, in the
bits they are kept in. Lengths are read on the device. A stream's positions are split among as many
programs as keep the GPU busy, and a second kernel joins their partial softmaxes
(as in flash decoding; Dao et al., 2023).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.engine.keeping import KeptLayer

POSITIONS = 64  # of one turn of a program's loop
LEAST_ROWS = 16  # of a product on tensor cores
LOG2_E = 1.4426950408889634


@triton.jit
def _append(
    new_pointer,
    elements_pointer,
    steps_pointer,
    lengths_pointer,
    inverse,
    stream_stride,
    head_stride,
    heads,
    max_length,
    d: tl.constexpr,
    largest: tl.constexpr,
    whole: tl.constexpr,
):
    """One head of one stream: its new key, or value, [d]."""
    stream, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    columns = tl.arange(0, d)
    x = tl.load(new_pointer + stream * stream_stride + head * head_stride + columns)
    x = x.to(tl.float32)
    place = (stream * heads + head).to(tl.int64) * max_length + tl.load(lengths_pointer + stream)
    if whole:
        # the step is rounded before anything is divided by it; bf16's smallest normal number
        step = (tl.max(tl.abs(x), 0) * (1 / 127)).to(tl.bfloat16).to(tl.float32)
        step = tl.maximum(step, 1.1754943508222875e-38)
        tl.store(steps_pointer + place, step.to(tl.bfloat16))
        x = tl.div_rn(x, step)
        # to the nearest, ties to even: adding 1.5 * 2^23 leaves no bits for a fraction
        x = (x + 12582912.0) - 12582912.0
        x = tl.minimum(tl.maximum(x, -127.0), 127.0)
    elif largest > 0:  # a float8; 0 stands for a dense format
        x = tl.minimum(tl.maximum(x * inverse, -largest), largest)
    tl.store(elements_pointer + place * d + columns, x.to(elements_pointer.dtype.element_ty))


@triton.jit
def _attend(
    q_pointer,
    keys_pointer,
    values_pointer,
    key_steps_pointer,
    value_steps_pointer,
    lengths_pointer,
    out_pointer,
    sums_pointer,
    q_stream_stride,
    q_head_stride,
    key_factor,
    value_factor,
    heads,
    max_length,
    turns,
    splits,
    group: tl.constexpr,
    d: tl.constexpr,
    whole: tl.constexpr,
    dtype: tl.constexpr,
    block_rows: tl.constexpr,
    block: tl.constexpr,
):
    """The query heads of one key head of one stream, over one stretch of its positions.

    Out is [streams * heads, splits, group, d] before division by the sums, and sums is
    [streams * heads, splits, group, 2]: the largest score and the sum of exp2(score - largest).
    """
    stream, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    split = tl.program_id(1)
    rows, columns = tl.arange(0, block_rows), tl.arange(0, d)
    there = rows[:, None] < group
    q_place = stream * q_stream_stride + (head * group + rows[:, None]) * q_head_stride
    q = tl.load(q_pointer + q_place + columns[None, :], mask=there, other=0.0).to(dtype)
    count = tl.load(lengths_pointer + stream) + 1
    first = (stream * heads + head).to(tl.int64) * max_length
    total = tl.zeros((block_rows, d), tl.float32)
    # a number, not -inf: a stretch without positions must not make NaN
    largest = tl.full((block_rows,), -1e30, tl.float32)
    sums = tl.zeros((block_rows,), tl.float32)
    start = split * turns * block
    stop = tl.minimum(start + turns * block, count)
    for begin in range(start, stop, block):
        positions = begin + tl.arange(0, block)
        inside = positions < count
        place = (first + positions)[:, None] * d + columns[None, :]
        keys = tl.load(keys_pointer + place, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(keys.to(dtype))) * key_factor
        if whole:
            scores *= tl.load(key_steps_pointer + first + positions, mask=inside, other=0.0).to(
                tl.float32
            )[None, :]
        scores = tl.where(inside[None, :], scores, -1e30)
        before, largest = largest, tl.maximum(largest, tl.max(scores, 1))
        weights = tl.where(inside[None, :], tl.exp2(scores - largest[:, None]), 0.0)
        shrink = tl.exp2(before - largest)
        sums = sums * shrink + tl.sum(weights, 1)
        if whole:
            weights *= tl.load(value_steps_pointer + first + positions, mask=inside, other=0.0).to(
                tl.float32
            )[None, :]
        values = tl.load(values_pointer + place, mask=inside[:, None], other=0.0)
        total = total * shrink[:, None] + tl.dot(weights.to(dtype), values.to(dtype))
    row = (tl.program_id(0) * splits + split) * group + rows
    tl.store(out_pointer + row[:, None] * d + columns[None, :], total * value_factor, mask=there)
    tl.store(sums_pointer + 2 * row, largest, mask=rows < group)
    tl.store(sums_pointer + 2 * row + 1, sums, mask=rows < group)


@triton.jit
def _join(
    parts_pointer,
    sums_pointer,
    out_pointer,
    splits,
    group: tl.constexpr,
    d: tl.constexpr,
    block_splits: tl.constexpr,
):
    """One query head of one stream: the weighted mean of its stretches, [d]."""
    key_head, member = tl.program_id(0) // group, tl.program_id(0) % group
    split, columns = tl.arange(0, block_splits), tl.arange(0, d)
    row = (key_head * splits + split) * group + member
    there = split < splits
    largest = tl.load(sums_pointer + 2 * row, mask=there, other=-1e30)
    share = tl.exp2(largest - tl.max(largest, 0))
    share = tl.where(there, share, 0.0)
    sums = tl.load(sums_pointer + 2 * row + 1, mask=there, other=0.0)
    parts = tl.load(
        parts_pointer + row[:, None] * d + columns[None, :], mask=there[:, None], other=0.0
    )
    y = tl.sum(parts * share[:, None], 0) / tl.sum(sums * share, 0)
    place = out_pointer + tl.program_id(0) * d + columns
    tl.store(place, y.to(out_pointer.dtype.element_ty))


def append(k: Tensor, v: Tensor, kept: KeptLayer) -> None:
    """Encode k, v [n, kv_heads, 1, d] at the first n streams' lengths."""
    n, heads, _, d = k.shape
    kind = kept.keys.dtype
    largest = torch.finfo(kind).max if kind.is_floating_point and kind.itemsize == 1 else 0.0
    pairs = (
        (k, kept.keys, kept.key_steps, kept.key_scale),
        (v, kept.values, kept.value_steps, kept.value_scale),
    )
    with on(k.device):
        for new, elements, steps, scale in pairs:
            _append[(n * heads,)](
                new,
                elements,
                steps,
                kept.lengths,
                1 / scale,
                new.stride(0),
                new.stride(1),
                heads,
                elements.shape[2],
                d=d,
                largest=largest,
                whole=steps is not None,
                num_warps=1,
            )


def attend(q: Tensor, kept: KeptLayer, limit: int) -> Tensor:
    """q [n, heads, 1, d] of the first n streams, each over its length and the new position, none
    of them at or beyond `limit` -> [n, heads, 1, d]."""
    n, heads, _, d = q.shape
    kv_heads, max_length = kept.keys.shape[1:3]
    group = heads // kv_heads
    blocks = triton.cdiv(limit, POSITIONS)
    turns = triton.cdiv(blocks, _splits(n * kv_heads, blocks, q.device))
    splits = triton.cdiv(blocks, turns)
    parts = q.new_empty((n * kv_heads, splits, group, d), dtype=torch.float32)
    sums = q.new_empty((n * kv_heads, splits, group, 2), dtype=torch.float32)
    out = torch.empty((n, heads, 1, d), dtype=q.dtype, device=q.device)
    half = tl.float16 if kept.keys.dtype is torch.float16 else tl.bfloat16
    with on(q.device):
        _attend[(n * kv_heads, splits)](
            q,
            kept.keys,
            kept.values,
            kept.key_steps,
            kept.value_steps,
            kept.lengths,
            parts,
            sums,
            q.stride(0),
            q.stride(1),
            kept.key_scale * LOG2_E / d**0.5,
            kept.value_scale,
            kv_heads,
            max_length,
            turns,
            splits,
            group=group,
            d=d,
            whole=kept.key_steps is not None,
            # Triton's interpreter has no products of bf16
            dtype=half if q.is_cuda else tl.float32,
            block_rows=max(LEAST_ROWS, triton.next_power_of_2(group)),
            block=POSITIONS,
        )
        _join[(n * heads,)](
            parts,
            sums,
            out,
            splits,
            group=group,
            d=d,
            block_splits=triton.next_power_of_2(splits),
            num_warps=1,
        )
    return out


def _splits(programs: int, blocks: int, device: torch.device) -> int:
    """Into how many stretches positions are cut: two programs a multiprocessor have work."""
    if device.type != "cuda":
        return min(2, blocks)  # Triton's interpreter, where only the result counts
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(wanted // programs, blocks))


def on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
