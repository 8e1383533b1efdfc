"""y = x W^T for a few rows of x, reading W once in the bits that it is kept in, with what stands
before and after it in a Transformer: a norm, rounding of inputs, a gate, a residual.

Decoding multiplies each weight with one row a stream, so its time is that of reading the weight.
Its rows are those of a product on tensor cores, and the streams its columns, or the digits of their
inputs (`digits`). Scales are applied to sums. One row has kernels of its own: `row`, which takes
two as well, and `wide` for weights of 16 bits. Several are written as they are multiplied in a
launch before (`inputs`). Where there are fewer blocks of outputs than a GPU has multiprocessors,
inputs are split among more programs; the one that is done last adds up their sums, always in the
same order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from quaver.nn.kernels.inputs import prepare
from quaver.nn.kernels.launch import on, shared_memory, splits_of, starting_early, tickets
from quaver.nn.kernels.operands import (
    LEAST_COLUMNS,
    MOST_SPLITS,
    Around,
    digits_for,
    dtype_for,
)
from quaver.nn.kernels.product import product
from quaver.nn.kernels.row import fits, row
from quaver.nn.kernels.wide import wide
from quaver.nn.weight import Kept, Packing

WARPS = 4


class Shape(NamedTuple):
    """How a product is cut."""

    outputs: int  # of a program
    inputs: int  # of one turn of its loop: never more than share a scale
    programs: int  # a multiprocessor, about
    stages: int  # of the loop's loads


def skinny(x: Tensor, weight: Kept, around: Around | None = None) -> Tensor:
    """x [rows, in], contiguous, times a weight -> [rows, out].

    The inputs that share a scale must be 64, or a multiple of 128, or all of a row.
    """
    around = around or Around()
    if fits(weight, len(x)):
        return row(x, weight, around)
    if len(x) == 1:
        return wide(x, weight, around)
    (rows, inputs), kind = x.shape, x.dtype
    digits = digits_for(weight, rows, around.rounded)
    halved = weight.packing is not Packing.NONE
    cut = _cut(weight, around.gated)
    unit = None
    if around.norm is not None or digits.count > 0 or halved:
        x, unit = prepare(x, around.norm, around.eps, digits, halved, around.step)
    halves = 2 if around.gated else 1
    outputs = weight.elements.shape[0] // halves
    out = torch.empty(rows, outputs, dtype=kind, device=x.device)
    parts = out
    if cut.splits > 1:
        parts = torch.empty(cut.splits, halves, outputs, rows, dtype=torch.float32, device=x.device)
    block_columns = max(LEAST_COLUMNS, triton.next_power_of_2(digits.columns * rows))
    with on(x.device):
        product[(cut.blocks, cut.splits)](
            x,
            weight.elements,
            weight.scale,
            weight.levels,
            unit,
            around.residual,
            out,
            parts,
            tickets(x.device),
            rows,
            outputs,
            inputs,
            inputs // cut.groups,
            cut.groups,
            cut.turns,
            splits=cut.splits,
            kind=weight.packing.value,
            digits=digits.count,
            whole=digits.whole,
            each=digits.columns,
            gated=around.gated,
            added=around.residual is not None,
            scaled=weight.scale is not None and cut.groups == 1,
            grouped=cut.groups > 1,
            dtype=dtype_for(kind, digits, x.is_cuda),
            block_columns=block_columns,
            block_rows=block_columns // digits.columns,
            block_outputs=cut.outputs,
            block_inputs=cut.inputs,
            num_warps=WARPS,
            num_stages=cut.stages,
            **starting_early(x.device),
        )
    return out


class _Cut(NamedTuple):
    """The programs of a product."""

    groups: int  # of inputs, which share a scale
    outputs: int  # of a program
    inputs: int  # of a turn
    turns: int
    blocks: int  # of outputs
    splits: int
    stages: int


def _cut(weight: Kept, gated: bool) -> _Cut:
    elements, shape = weight.elements, shape_of(weight, gated)
    rows, length = elements.shape
    packs, halves = 1 if weight.packing is Packing.NONE else 2, 2 if gated else 1
    inputs = length * packs
    groups = 1 if weight.scale is None else weight.scale.shape[1]
    each = min(shape.inputs, inputs // groups) if groups > 1 else shape.inputs
    turns, blocks = triton.cdiv(inputs, each), triton.cdiv(rows // halves, shape.outputs)
    splits = splits_of(turns, blocks, shape.programs, MOST_SPLITS, elements.device)
    here = triton.cdiv(turns, splits)
    # loads ahead as far as there is memory for them: inputs may take as much as weights
    turn = shape.outputs * halves * each * elements.itemsize // packs
    room = shared_memory(elements.device) - each * LEAST_COLUMNS * 2
    stages = max(1, min(shape.stages, room // (2 * turn)))
    return _Cut(groups, shape.outputs, each, here, blocks, triton.cdiv(turns, here), stages)


def shape_of(weight: Kept, gated: bool) -> Shape:
    """How a product by `weight` is cut. Others were tried in fp8 alone, for 8 to 64 rows."""
    outputs, length = weight.elements.shape
    if weight.elements.itemsize == 1 and weight.packing is Packing.NONE:
        return Shape(64, 256, programs=1, stages=4)
    programs = 1 if gated or outputs == length else 2
    return Shape(64, 256 if weight.elements.itemsize == 1 else 128, programs, stages=3)
