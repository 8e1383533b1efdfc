"""Attention of whole prompts, several in one row of inputs, two launches a layer.

The first turns queries and keys by their positions and encodes keys and values into the cache; the
second lets each input look at those of its own prompt, up to itself, as they were kept.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.engine.keeping import KeptLayer
from quaver.engine.kernels.attention import LOG2_E, keep, largest_of, turned
from quaver.nn.kernels.launch import on, starting_early, turn

QUERIES, INPUTS = 16, 64  # of a program, and of a turn of its loop


@triton.jit
def _keep_all(
    qkv_pointer,
    cos_pointer,
    sin_pointer,
    slots_pointer,
    positions_pointer,
    keys_pointer,
    values_pointer,
    key_steps_pointer,
    value_steps_pointer,
    q_pointer,
    kv_pointer,
    key_slot_stride,
    key_head_stride,
    value_slot_stride,
    value_head_stride,
    position_stride,
    column_stride,
    max_length,
    key_scale,
    value_scale,
    key_inverse,
    value_inverse,
    inputs,
    heads,
    head_stride,
    input_stride,
    group: tl.constexpr,
    block_heads: tl.constexpr,
    d: tl.constexpr,
    largest: tl.constexpr,
    whole: tl.constexpr,
    early: tl.constexpr,
):
    """One input, one key head and its queries. Queries become [inputs, heads * group, d], and what
    was kept [keys or values, heads, inputs, d]."""
    one, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots_pointer + one)
    position = tl.load(positions_pointer + one)
    columns, zero = tl.arange(0, d), tl.arange(0, 1)[:, None]
    rows = tl.arange(0, block_heads)[:, None]
    cos = tl.load(cos_pointer + position * d + columns)
    sin = tl.load(sin_pointer + position * d + columns)
    turn(early)
    qkv = qkv_pointer + one * input_stride
    there = rows < group
    q = turned(qkv, cos, sin, columns, (head * group + rows) * head_stride, there, d)
    place = q_pointer + ((one * heads + head) * group + rows) * d + columns[None, :]
    tl.store(place, q, mask=there)
    k = turned(qkv, cos, sin, columns, (heads * group + head + zero) * head_stride, zero == 0, d)
    v = tl.load(qkv + (heads * (group + 1) + head + zero) * head_stride + columns[None, :])
    keys = keys_pointer + slot * key_slot_stride + head * key_head_stride + position * d
    values = values_pointer + slot * value_slot_stride + head * value_head_stride
    values += position * position_stride + columns[None, :] * column_stride
    step = (slot * heads + head) * max_length + position
    keys += columns[None, :]
    k = keep(k, keys, key_steps_pointer, step, key_inverse, largest, whole)
    v = keep(v, values, value_steps_pointer, step, value_inverse, largest, whole)
    out = kv_pointer + (head * inputs + one) * d + columns[None, :]
    kind = kv_pointer.dtype.element_ty
    tl.store(out, (k * key_scale).to(kind))
    tl.store(out + heads * inputs * d, (v * value_scale).to(kind))


@triton.jit
def _look_back(
    q_pointer,
    kv_pointer,
    slots_pointer,
    positions_pointer,
    out_pointer,
    factor,
    inputs,
    heads,
    group: tl.constexpr,
    d: tl.constexpr,
    dtype: tl.constexpr,
    queries: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """Some inputs and one head of theirs."""
    first, head = tl.program_id(0) * queries, tl.program_id(1)
    columns, own = tl.arange(0, d), first + tl.arange(0, queries)
    slot = tl.load(slots_pointer + own, mask=own < inputs, other=-1)
    position = tl.load(positions_pointer + own, mask=own < inputs, other=0)
    turn(early)
    place = q_pointer + (own[:, None] * heads * group + head) * d + columns[None, :]
    q = tl.load(place, mask=own[:, None] < inputs, other=0.0).to(dtype)
    kept = kv_pointer + (head // group) * inputs * d
    total = tl.zeros((queries, d), tl.float32)
    most = tl.full((queries,), -1e30, tl.float32)
    below = tl.zeros((queries,), tl.float32)
    for begin in range(0, tl.minimum(first + queries, inputs), block):
        other = begin + tl.arange(0, block)
        inside = other < inputs
        theirs = tl.load(slots_pointer + other, mask=inside, other=-2)
        before = tl.load(positions_pointer + other, mask=inside, other=0)
        source = kept + other[:, None] * d + columns[None, :]
        k = tl.load(source, mask=inside[:, None], other=0.0).to(dtype)
        v = tl.load(source + heads * inputs * d, mask=inside[:, None], other=0.0).to(dtype)
        seen = (slot[:, None] == theirs[None, :]) & (before[None, :] <= position[:, None])
        scores = tl.where(seen, tl.dot(q, tl.trans(k)) * factor, -1e30)
        high = tl.maximum(most, tl.max(scores, 1))
        weights = tl.where(seen, tl.exp2(scores - high[:, None]), 0.0)
        shrink = tl.exp2(most - high)
        below = below * shrink + tl.sum(weights, 1)
        total = total * shrink[:, None] + tl.dot(weights.to(dtype), v)
        most = high
    place = out_pointer + (own[:, None] * heads * group + head) * d + columns[None, :]
    y = total / below[:, None]
    tl.store(place, y.to(out_pointer.dtype.element_ty), mask=own[:, None] < inputs)


def read(
    qkv: Tensor, rope: tuple[Tensor, Tensor], kept: KeptLayer, slots: Tensor, positions: Tensor
) -> Tensor:
    """qkv [1, heads + 2 kv_heads, t, d] of inputs that belong to `slots` [t] at `positions` [t],
    those of a prompt in their order, and cosines and sines [positions, d]: keep keys and values,
    and look at those of the same prompt -> [1, heads, t, d]."""
    _, all_heads, inputs, d = qkv.shape
    kv_heads, max_length = kept.keys.shape[1:3]
    heads = all_heads - 2 * kv_heads
    group, kind = heads // kv_heads, qkv.dtype
    q = torch.empty(inputs, heads, d, dtype=kind, device=qkv.device)
    found = torch.empty(2, kv_heads, inputs, d, dtype=kind, device=qkv.device)
    out = torch.empty_like(q)
    dtype = tl.float16 if kind is torch.float16 else tl.bfloat16
    with on(qkv.device):
        _keep_all[(inputs, kv_heads)](
            qkv,
            *rope,
            slots,
            positions,
            kept.keys,
            kept.values,
            kept.key_steps,
            kept.value_steps,
            q,
            found,
            kept.keys.stride(0),
            kept.keys.stride(1),
            *kept.values.stride(),
            max_length,
            kept.key_scale,
            kept.value_scale,
            1 / kept.key_scale,
            1 / kept.value_scale,
            inputs,
            kv_heads,
            qkv.stride(1),
            qkv.stride(2),
            group=group,
            block_heads=triton.next_power_of_2(group),
            d=d,
            largest=largest_of(kept.keys.dtype),
            whole=kept.key_steps is not None,
            num_warps=1,
            **starting_early(qkv.device),
        )
        _look_back[(triton.cdiv(inputs, QUERIES), heads)](
            q,
            found,
            slots,
            positions,
            out,
            LOG2_E / d**0.5,
            inputs,
            kv_heads,
            group=group,
            d=d,
            # Triton's interpreter has no products of bf16
            dtype=dtype if qkv.is_cuda else tl.float32,
            queries=QUERIES,
            block=INPUTS,
            num_warps=4,
            num_stages=2,
            **starting_early(qkv.device),
        )
    return out[None].transpose(1, 2)
