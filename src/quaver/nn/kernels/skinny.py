"""y = x W^T for a few rows of x, reading W once in the bits that it is kept in, with what stands
before and after it in a Transformer: a norm, rounding of inputs, a gate, a residual.

Decoding multiplies each weight with one row a stream, so its time is that of reading the weight.
Its rows are those of a product on tensor cores, and the streams its columns, or the digits of their
inputs (`digits`). Scales are applied to sums. Where there are fewer blocks of outputs than a GPU
has multiprocessors, inputs are split among more programs; the one that is done last adds up their
sums, always in the same order. One row leaves most columns unused: its outputs may have several
rows of the product, each with columns of its own for a stretch of inputs, and every program norms
it and writes it in digits for itself, in place of another launch. One row and four bits have a
kernel of their own (`nibbles`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from quaver.nn.kernels.inputs import columns as columns_of
from quaver.nn.kernels.inputs import prepare
from quaver.nn.kernels.launch import on, splits_of, starting_early, tickets
from quaver.nn.kernels.nibbles import nibbles
from quaver.nn.kernels.operands import Around, digits_for, dtype_for, fitting
from quaver.nn.kernels.product import product
from quaver.nn.weight import Kept, Packing

LEAST_COLUMNS = 16  # of a product on tensor cores
MOST_SPLITS = 8  # of inputs: sums are shared by so many programs


class Shape(NamedTuple):
    """How a product is cut."""

    outputs: int  # of a program
    inputs: int  # of one turn of its loop: never more than share a scale
    programs: float  # a multiprocessor, about
    warps: int
    stages: int  # of the loop's loads
    shares: int = 1  # rows of a product for each output: stretches of inputs


def skinny(x: Tensor, weight: Kept, around: Around | None = None) -> Tensor:
    """x [rows, in], contiguous, times a weight -> [rows, out].

    The inputs that share a scale must be 64, or a multiple of 128, or all of a row.
    """
    around = around or Around()
    if x.shape[0] == 1 and weight.packing is Packing.INT4:
        return nibbles(x, weight, around)
    (rows, inputs), kind = x.shape, x.dtype
    alone = rows == 1
    digits = digits_for(weight, rows, around.rounded)
    halved = weight.packing is not Packing.NONE
    cut = _cut(weight, rows, around.gated)
    row, unit = x, None
    changed = around.norm is not None or digits.count > 0 or halved
    if changed and alone:
        x = columns_of(x, digits, cut.blocks * cut.splits)
    elif changed:
        x, unit = prepare(x, around.norm, around.eps, digits, halved, around.step)
    halves = 2 if around.gated else 1
    outputs = weight.elements.shape[0] // halves
    out = torch.empty(rows, outputs, dtype=kind, device=x.device)
    parts = out
    if cut.splits > 1:
        parts = torch.empty(cut.splits, halves, outputs, rows, dtype=torch.float32, device=x.device)
    needed = digits.columns * (cut.shape.shares if alone else rows)
    block_columns = max(LEAST_COLUMNS, triton.next_power_of_2(needed))
    with on(x.device):
        product[(cut.blocks, cut.splits)](
            row,
            x,
            weight.elements,
            weight.scale,
            weight.levels,
            around.norm,
            around.step,
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
            around.eps,
            splits=cut.splits,
            shares=cut.shape.shares,
            kind=weight.packing.value,
            alone=alone,
            writes=alone and changed,
            normed=around.norm is not None,
            given=around.step is not None,
            digits=digits.count,
            whole=digits.whole,
            each=digits.columns,
            gated=around.gated,
            added=around.residual is not None,
            scaled=weight.scale is not None and cut.groups == 1,
            grouped=cut.groups > 1,
            dtype=dtype_for(kind, digits, x.is_cuda),
            block_columns=block_columns,
            block_rows=1 if alone else block_columns // digits.columns,
            block_outputs=cut.shape.outputs,
            block_inputs=cut.inputs,
            block_row=triton.next_power_of_2(inputs) if alone else 1,
            stretch=triton.next_power_of_2(min(inputs, cut.stretch)) if alone else 1,
            num_warps=cut.shape.warps,
            num_stages=cut.stages,
            **starting_early(x.device),
        )
    return out


class _Cut(NamedTuple):
    """The programs of a product."""

    shape: Shape
    groups: int  # of inputs, which share a scale
    inputs: int  # of a turn
    turns: int
    blocks: int  # of outputs
    splits: int
    stages: int

    @property
    def stretch(self) -> int:
        """Inputs of a program."""
        return self.shape.shares * self.turns * self.inputs


def _cut(weight: Kept, rows: int, gated: bool) -> _Cut:
    elements, shape = weight.elements, shape_of(weight, rows, gated)
    outputs, length = elements.shape
    packs, halves = 1 if weight.packing is Packing.NONE else 2, 2 if gated else 1
    inputs = length * packs
    groups = 1 if weight.scale is None else weight.scale.shape[1]
    each = min(shape.inputs, inputs // groups) if groups > 1 else shape.inputs
    turns, blocks = triton.cdiv(inputs, each), triton.cdiv(outputs // halves, shape.outputs)
    splits = splits_of(turns, blocks, shape.programs, MOST_SPLITS, elements.device)
    here = triton.cdiv(turns, splits * shape.shares)
    # loads ahead as far as there is memory for them: several rows take as much as weights, and one
    # row's columns are there once
    turn = shape.outputs * shape.shares * halves * each * elements.itemsize // packs
    room = _memory(elements.device) - each * LEAST_COLUMNS * 2
    stages = max(1, min(shape.stages, room // (turn if rows == 1 else 2 * turn)))
    return _Cut(shape, groups, each, here, blocks, triton.cdiv(turns, here * shape.shares), stages)


# Of what was tried on an H200 with one row and Orpheus-3B's shapes, the fastest: in products of
# more outputs than inputs, of as many, of fewer, and in gated ones.
ONE_ROW = {
    "bf16": (
        Shape(64, 256, 2, 4, 3),
        Shape(64, 256, 2, 4, 3),
        Shape(64, 256, 2, 4, 3),
        Shape(32, 64, 1, 8, 3, shares=4),
    ),
    "bytes": (
        Shape(64, 256, 3, 4, 3),
        Shape(64, 512, 2, 4, 3),
        Shape(16, 256, 1, 8, 3, shares=8),
        Shape(32, 128, 1, 8, 3, shares=4),
    ),
    "nf4": (
        Shape(64, 128, 4, 4, 3),
        Shape(64, 128, 4, 4, 3),
        Shape(64, 128, 4, 4, 3),
        Shape(64, 128, 2, 4, 3),
    ),
}


def shape_of(weight: Kept, rows: int, gated: bool) -> Shape:
    """How a product by `weight` is cut. For several rows others were tried in fp8 alone, for 64."""
    outputs, length = weight.elements.shape
    bytes_each = weight.elements.itemsize
    if rows > 1:
        programs = 1 if gated or outputs == length else 2
        if bytes_each == 1:
            return Shape(64, 256, programs, warps=4, stages=3)
        return Shape(64, 128, programs, warps=4, stages=3)
    packed = weight.packing is not Packing.NONE
    kind = weight.packing.name.lower() if packed else "bf16" if bytes_each == 2 else "bytes"
    return fitting(ONE_ROW[kind], outputs, length * (2 if packed else 1), gated)


def _memory(device: torch.device) -> int:
    """Bytes that a program can share."""
    if device.type != "cuda":
        return 1 << 20  # Triton's interpreter, which has as much as it likes
    known = torch.cuda.get_device_properties(device)
    return int(known.shared_memory_per_block_optin)  # type: ignore[attr-defined]
