"""y = W x for one row x and weights of 16 bits, as a single stream decodes: `skinny` for those.

A program's first loads of the weight are under way when it begins to wait for x, and those of the
next blocks follow while the first are multiplied. One row leaves most columns of a product on
tensor cores unused: an output may have several rows of the weight's block, each over a stretch of
inputs of its own, which is a column. Every program norms x for itself, in place of another launch.
Where there are few outputs, inputs are split among more programs, as for several rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.digits import PLAIN
from quaver.nn.kernels.launch import (
    meet,
    on,
    shared_memory,
    splits_of,
    starting_early,
    tickets,
    turn,
)
from quaver.nn.kernels.operands import (
    LEAST_COLUMNS,
    MOST_SPLITS,
    Around,
    dtype_for,
    fitting,
)
from quaver.nn.kernels.product import shared
from quaver.nn.weight import Kept

STAGES = 3  # of the loop's loads


class Shape(NamedTuple):
    """How a product is cut."""

    outputs: int  # of a program
    inputs: int  # of one turn of its loop
    programs: int  # a multiprocessor, about
    warps: int
    shares: int = 1  # rows of the product for each output: stretches of inputs


# Of what was tried on an H200 with Orpheus-3B's shapes, the fastest.
SHAPES = (
    Shape(64, 256, 2, 4),
    Shape(64, 256, 2, 4),
    Shape(64, 256, 2, 4),
    Shape(32, 64, 1, 8, shares=4),
)


@triton.jit
def _write_normed(
    x_pointer, norm_pointer, weight, out_pointer, first, inputs, eps, stretch: tl.constexpr
):
    """Write a stretch of the RMS norm of one row, or all of it. `weight` is all of the norm's."""
    k = tl.arange(0, weight.shape[0])
    x = tl.load(x_pointer + k, mask=k < inputs, other=0.0)
    wide = x.to(tl.float32)
    rms = tl.rsqrt(tl.sum(wide * wide, 0) / inputs + eps)
    if stretch < weight.shape[0]:
        k = first + tl.arange(0, stretch)
        x = tl.load(x_pointer + k, mask=k < inputs, other=0.0)
        weight = tl.load(norm_pointer + k, mask=k < inputs, other=0.0)
    tl.store(out_pointer + k, (x.to(tl.float32) * rms * weight).to(x.dtype), mask=k < inputs)


@triton.jit
def _loaded(pointer, start, there, inputs, block: tl.constexpr):
    """`block` inputs of each column's stretch, from its start on, [k, columns]."""
    k = start[:, None] + tl.arange(0, block)[None, :]
    return tl.trans(tl.load(pointer + k, mask=there[:, None] & (k < inputs), other=0.0))


@triton.jit
def _multiplied(
    pointer, n, start, x, outputs, inputs, dtype: tl.constexpr, block_inputs: tl.constexpr
):
    """Rows n of a weight, each from its start on, times so many inputs, x [inputs, columns]."""
    k = start[:, None] + tl.arange(0, block_inputs)[None, :]
    inside = (n[:, None] < outputs) & (k < inputs)
    place = pointer + n[:, None].to(tl.int64) * inputs + k
    weight = tl.load(place, mask=inside, other=0.0).to(dtype)
    return tl.dot(weight, x.to(dtype))


@triton.jit
def _own(sums, share, shares: tl.constexpr):
    """Sums [outputs * shares, columns], a row of which means the column of its own stretch
    -> [outputs, 1]."""
    column = tl.arange(0, sums.shape[1])
    own = tl.sum(tl.where(column[None, :] == share[:, None], sums, 0.0), 1)
    return tl.sum(tl.reshape(own, (sums.shape[0] // shares, shares)), 1)[:, None]


@triton.jit
def _multiply(
    x_pointer,
    normed_pointer,
    weight_pointer,
    norm_pointer,
    residual_pointer,
    out_pointer,
    parts_pointer,
    tickets_pointer,
    outputs,
    inputs,
    turns,
    eps,
    splits: tl.constexpr,
    shares: tl.constexpr,
    normed: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    dtype: tl.constexpr,
    columns: tl.constexpr,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
    block_row: tl.constexpr,
    stretch: tl.constexpr,
    early: tl.constexpr,
):
    """One block of outputs. Each of its shares of inputs is `turns` blocks."""
    block = tl.program_id(0)
    row, column = tl.arange(0, block_outputs * shares), tl.arange(0, columns)
    share = row % shares
    n = block * block_outputs + row // shares
    all_outputs = outputs * (2 if gated else 1)
    # where rows of the weight and columns of inputs begin
    first = tl.program_id(1) * shares * turns * block_inputs
    k = first + share * turns * block_inputs
    start = first + column * turns * block_inputs
    there = column < shares
    given = x_pointer
    if normed:
        own = tl.program_id(1) * tl.num_programs(0) + block
        given = normed_pointer + own * inputs
        whole_row = tl.arange(0, block_row)
        norm = tl.load(norm_pointer + whole_row, mask=whole_row < inputs, other=0.0)
    total = tl.zeros((block_outputs * shares, columns), tl.float32)
    gate = tl.zeros((block_outputs * shares, columns), tl.float32)
    # Inputs are too few for the loop's own loads ahead: those of the next turn are asked for here,
    # before this one's are used.
    x = tl.zeros((block_inputs, columns), x_pointer.dtype.element_ty)
    for number in range(turns):
        if number == 0:  # within the loop, since its loads of weights ahead come before that
            turn(early)
            if normed:
                _write_normed(x_pointer, norm_pointer, norm, given, first, inputs, eps, stretch)
                if dtype != tl.float32:  # the interpreter has one thread
                    meet()
            x = _loaded(given, start, there, inputs, block_inputs)
        total += _multiplied(weight_pointer, n, k, x, all_outputs, inputs, dtype, block_inputs)
        if gated:
            gate += _multiplied(
                weight_pointer, n + outputs, k, x, all_outputs, inputs, dtype, block_inputs
            )
        k += block_inputs
        start += block_inputs
        x = _loaded(given, start, there, inputs, block_inputs)
    m = tl.arange(0, 1)
    n = block * block_outputs + tl.arange(0, block_outputs)
    y = _own(total, share, shares)
    up = _own(gate, share, shares) if gated else y
    inside = (n < outputs)[:, None]
    if added:  # asked for before sums are shared, which takes as long
        residual = tl.load(residual_pointer + n[:, None], mask=inside, other=0.0)
    last = turns >= 0
    if splits > 1:
        ticket = tickets_pointer + block
        last, y, up = shared(y, up, parts_pointer, ticket, n, m, inside, 1, outputs, splits, gated)
    if last:
        if gated:
            y = y / (1 + tl.exp(-y)) * up
        if added:
            y += residual.to(tl.float32)
        tl.store(out_pointer + n[:, None], y.to(out_pointer.dtype.element_ty), mask=inside)


def wide(x: Tensor, weight: Kept, around: Around) -> Tensor:
    """x [1, in] times a weight of 16 bits -> [1, out]."""
    rows, inputs = weight.elements.shape
    halves = 2 if around.gated else 1
    outputs = rows // halves
    shape = fitting(SHAPES, rows, inputs, around.gated)
    turns, blocks = triton.cdiv(inputs, shape.inputs), triton.cdiv(outputs, shape.outputs)
    splits = splits_of(turns, blocks, shape.programs, MOST_SPLITS, x.device)
    turns = triton.cdiv(turns, splits * shape.shares)
    stretch = turns * shape.inputs * shape.shares
    splits = triton.cdiv(inputs, stretch)
    # loads ahead as far as there is memory for them
    taken = shape.outputs * shape.shares * halves * shape.inputs * weight.elements.itemsize
    room = shared_memory(x.device) - shape.inputs * LEAST_COLUMNS * 2
    out = torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    normed, parts = x, out
    if around.norm is not None:
        normed = x.new_empty(blocks * splits, inputs)
    if splits > 1:
        parts = torch.empty(splits, halves, outputs, dtype=torch.float32, device=x.device)
    with on(x.device):
        _multiply[(blocks, splits)](
            x,
            normed,
            weight.elements,
            around.norm,
            around.residual,
            out,
            parts,
            tickets(x.device),
            outputs,
            inputs,
            turns,
            around.eps,
            splits=splits,
            shares=shape.shares,
            normed=around.norm is not None,
            gated=around.gated,
            added=around.residual is not None,
            dtype=dtype_for(x.dtype, PLAIN, x.is_cuda),
            columns=LEAST_COLUMNS,
            block_outputs=shape.outputs,
            block_inputs=shape.inputs,
            block_row=triton.next_power_of_2(inputs),
            stretch=triton.next_power_of_2(min(inputs, stretch)),
            num_warps=shape.warps,
            num_stages=max(1, min(STAGES, room // taken)),
            **starting_early(x.device),
        )
    return out
