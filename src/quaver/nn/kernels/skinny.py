"""y = x W^T for a few rows of x, reading W once in the bits that it is kept in, with what stands
before and after it in a Transformer: a norm, rounding of inputs, a gate, a residual.

Decoding multiplies each weight with one row a stream, so its time is that of reading the weight.
Its rows are those of a product on tensor cores, and the streams its columns. Scales are applied to
sums. Where there are fewer blocks of outputs than a GPU has multiprocessors, inputs are split among
more programs; the one that is done last adds up their sums, always in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.launch import on, tickets
from quaver.nn.weight import Kept

OUTPUTS = 64  # of a program
INPUTS = 128  # of one turn of its loop: never more than share a scale
WHOLE = 4096  # numbers of a turn that looks at all of x
E4M3 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class Around:
    """What a product is fused with. A residual, [rows, out], is added last."""

    norm: Tensor | None = None  # fp32 weight [in] of an RMS norm of the inputs
    eps: float = 0.0
    rounded: bool = False  # each row of inputs to E4M3, by a scale of its own
    gated: bool = False  # silu(first half of the outputs) * second half
    residual: Tensor | None = None


@triton.jit
def _inputs(
    x_pointer,
    norm_pointer,
    m,
    k,
    rows,
    inputs,
    rms,
    step,
    normed: tl.constexpr,
    rounded: tl.constexpr,
    largest: tl.constexpr,
):
    """Columns k of x, [rows, k], as they are multiplied."""
    there = (m[:, None] < rows) & (k[None, :] < inputs)
    x = tl.load(x_pointer + m[:, None] * inputs + k[None, :], mask=there, other=0.0)
    if normed:
        weight = tl.load(norm_pointer + k, mask=k < inputs, other=0.0)
        x = (x.to(tl.float32) * rms[:, None] * weight[None, :]).to(x_pointer.dtype.element_ty)
    if rounded:
        x = x.to(tl.float32) / step[:, None]
        x = tl.minimum(tl.maximum(x, -largest), largest)
        x = x.to(tl.float8e4nv, fp_downcast_rounding="rtne")
    return x


@triton.jit
def _rms_and_step(
    x_pointer,
    norm_pointer,
    m,
    rows,
    inputs,
    eps,
    normed: tl.constexpr,
    rounded: tl.constexpr,
    largest: tl.constexpr,
    block_rows: tl.constexpr,
    block: tl.constexpr,
):
    """What each row is multiplied by in its norm, and then divided by to be rounded."""
    rms = tl.full((block_rows,), 1.0, tl.float32)
    step = tl.full((block_rows,), 1.0, tl.float32)
    if normed:
        squares = tl.zeros((block_rows,), tl.float32)
        for first in range(0, inputs, block):
            k = first + tl.arange(0, block)
            x = _inputs(
                x_pointer, norm_pointer, m, k, rows, inputs, rms, step, False, False, largest
            ).to(tl.float32)
            squares += tl.sum(x * x, 1)
        rms = tl.rsqrt(squares / inputs + eps)
    if rounded:
        most = tl.zeros((block_rows,), tl.float32)
        for first in range(0, inputs, block):
            k = first + tl.arange(0, block)
            x = _inputs(
                x_pointer, norm_pointer, m, k, rows, inputs, rms, step, normed, False, largest
            )
            most = tl.maximum(most, tl.max(tl.abs(x.to(tl.float32)), 1))
        # as in quant.fp8: no scale is below fp32's smallest normal number
        step = tl.maximum(most, largest * 1.1754943508222875e-38) / largest
    return rms, step


@triton.jit
def _product(
    pointer,
    levels_pointer,
    n,
    first,
    even,
    odd,
    outputs,
    inputs,
    kind: tl.constexpr,
    dtype: tl.constexpr,
    block_inputs: tl.constexpr,
):
    """Rows n of a weight times inputs from `first` on, [n, rows]. Those of a packed weight come
    as those of even and of odd numbers."""
    if kind == 0:
        k = first + tl.arange(0, block_inputs)
        inside = (n[:, None] < outputs) & (k[None, :] < inputs)
        place = pointer + n[:, None].to(tl.int64) * inputs + k[None, :]
        part = tl.dot(tl.load(place, mask=inside, other=0.0).to(dtype), even)
    else:
        half = inputs // 2
        k = first // 2 + tl.arange(0, block_inputs // 2)
        inside = (n[:, None] < outputs) & (k[None, :] < half)
        place = pointer + n[:, None].to(tl.int64) * half + k[None, :]
        pair = tl.load(place, mask=inside, other=0).to(tl.int32)
        low, high = pair & 15, pair >> 4
        if kind == 1:
            part = tl.dot((low - 8).to(dtype), even) + tl.dot((high - 8).to(dtype), odd)
        else:
            part = tl.dot(tl.load(levels_pointer + high).to(dtype), even)
            part += tl.dot(tl.load(levels_pointer + low).to(dtype), odd)
    return part


@triton.jit
def _skinny(
    x_pointer,
    weight_pointer,
    scale_pointer,
    levels_pointer,
    norm_pointer,
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
    normed: tl.constexpr,
    rounded: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    scaled: tl.constexpr,
    grouped: tl.constexpr,
    dtype: tl.constexpr,
    largest: tl.constexpr,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
    block_whole: tl.constexpr,
):
    """One block of outputs, one stretch of `turns` blocks of inputs."""
    block, split = tl.program_id(0), tl.program_id(1)
    n = block * block_outputs + tl.arange(0, block_outputs)
    m = tl.arange(0, block_rows)
    rms, step = _rms_and_step(
        x_pointer,
        norm_pointer,
        m,
        rows,
        inputs,
        eps,
        normed,
        rounded,
        largest,
        block_rows,
        block_whole,
    )
    total = tl.zeros((block_outputs, block_rows), tl.float32)
    gate = tl.zeros((block_outputs, block_rows), tl.float32)
    for turn in range(turns):
        first = (split * turns + turn) * block_inputs
        k = first + tl.arange(0, block_inputs)
        if kind > 0:
            k = first + 2 * tl.arange(0, block_inputs // 2)
        even = _inputs(
            x_pointer, norm_pointer, m, k, rows, inputs, rms, step, normed, rounded, largest
        )
        even = tl.trans(even.to(dtype))
        odd = even
        if kind > 0:
            odd = _inputs(
                x_pointer, norm_pointer, m, k + 1, rows, inputs, rms, step, normed, rounded, largest
            )
            odd = tl.trans(odd.to(dtype))
        part = _product(
            weight_pointer,
            levels_pointer,
            n,
            first,
            even,
            odd,
            outputs,
            inputs,
            kind,
            dtype,
            block_inputs,
        )
        there = (n < outputs) & (first < inputs)
        if grouped:
            place = scale_pointer + n * groups + first // group
            part *= tl.load(place, mask=there, other=0.0).to(tl.float32)[:, None]
        total += part
        if gated:
            part = _product(  # the second half of the rows
                weight_pointer,
                levels_pointer,
                n + outputs,
                first,
                even,
                odd,
                2 * outputs,
                inputs,
                kind,
                dtype,
                block_inputs,
            )
            if grouped:
                place = scale_pointer + (n + outputs) * groups + first // group
                part *= tl.load(place, mask=there, other=0.0).to(tl.float32)[:, None]
            gate += part
    inside = (n[:, None] < outputs) & (m[None, :] < rows)
    last = split >= 0
    if splits > 1:
        # parts are [splits, halves, outputs, rows]
        half = outputs * rows
        each = half * 2 if gated else half
        parts = parts_pointer + n[:, None] * rows + m[None, :]
        tl.store(parts + split * each, total, mask=inside)
        if gated:
            tl.store(parts + split * each + half, gate, mask=inside)
        tl.debug_barrier()
        last = tl.atomic_add(tickets_pointer + block, 1, sem="acq_rel") == splits - 1
        if last:
            tl.store(tickets_pointer + block, 0)
            total = tl.zeros((block_outputs, block_rows), tl.float32)
            gate = tl.zeros((block_outputs, block_rows), tl.float32)
            for one in range(splits):
                own = parts + one * each
                total += tl.load(own, mask=inside, other=0.0, cache_modifier=".cg")
                if gated:
                    gate += tl.load(own + half, mask=inside, other=0.0, cache_modifier=".cg")
    if last:
        total *= step[None, :]
        gate *= step[None, :]
        if scaled:
            scale = tl.load(scale_pointer + n, mask=n < outputs, other=0.0).to(tl.float32)
            total *= scale[:, None]
            if gated:
                scale = tl.load(scale_pointer + outputs + n, mask=n < outputs, other=0.0)
                gate *= scale.to(tl.float32)[:, None]
        if gated:
            total = total / (1 + tl.exp(-total)) * gate
        where = m[None, :] * outputs + n[:, None]
        if added:
            total += tl.load(residual_pointer + where, mask=inside, other=0.0).to(tl.float32)
        tl.store(out_pointer + where, total.to(out_pointer.dtype.element_ty), mask=inside)


def skinny(x: Tensor, weight: Kept, around: Around | None = None) -> Tensor:
    """x [rows, in], at most `MOST_FUSED_ROWS` and contiguous, times a weight -> [rows, out].

    The inputs that share a scale must be a multiple of `INPUTS`, or a power of two below it, or all
    of a row.
    """
    around = around or Around()
    rows, inputs = x.shape
    outputs = weight.elements.shape[0] // (2 if around.gated else 1)
    groups = 1 if weight.scale is None else weight.scale.shape[1]
    group = inputs // groups
    block = min(INPUTS, group) if groups > 1 else INPUTS
    blocks = triton.cdiv(inputs, block)
    turns = triton.cdiv(blocks, _splits(triton.cdiv(outputs, OUTPUTS), blocks, x.device))
    splits = triton.cdiv(blocks, turns)
    block_rows = max(16, triton.next_power_of_2(rows))
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    parts = out
    if splits > 1:
        halves = 2 if around.gated else 1
        parts = torch.empty(splits, halves, outputs, rows, dtype=torch.float32, device=x.device)
    with on(x.device):
        _skinny[(triton.cdiv(outputs, OUTPUTS), splits)](
            x,
            weight.elements,
            weight.scale,
            weight.levels,
            around.norm,
            around.residual,
            out,
            parts,
            tickets(x.device),
            rows,
            outputs,
            inputs,
            group,
            groups,
            turns,
            around.eps,
            splits=splits,
            kind=weight.packing.value,
            normed=around.norm is not None,
            rounded=around.rounded,
            gated=around.gated,
            added=around.residual is not None,
            scaled=weight.scale is not None and groups == 1,
            grouped=groups > 1,
            dtype=_dtype(x, weight, around),
            largest=torch.finfo(E4M3).max,
            block_rows=block_rows,
            block_outputs=OUTPUTS,
            block_inputs=block,
            block_whole=WHOLE // block_rows,
        )
    return out


def _dtype(x: Tensor, weight: Kept, around: Around) -> tl.dtype:
    """What is multiplied: eight-bit floats where both sides are, else what x is in."""
    if not x.is_cuda:
        return tl.float32  # Triton's interpreter has no products of bf16
    if around.rounded and weight.elements.dtype is E4M3:
        return tl.float8e4nv
    return tl.float16 if x.dtype is torch.float16 else tl.bfloat16


def _splits(programs: int, blocks: int, device: torch.device) -> int:
    """Into how many stretches inputs are cut, so that two programs a multiprocessor have work."""
    if device.type != "cuda":
        return min(2, blocks)  # Triton's interpreter, where only the result counts
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(wanted // programs, blocks, 8))
