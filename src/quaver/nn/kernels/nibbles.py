"""y = W x for one row x and weights of four bits, as a single stream decodes: `skinny` for those.

Four bits are read so fast that a launch is as long as what its programs wait for one after the
other: x, the sum of its squares and its largest number, its digits, the products, their sums. All
else is asked for before, above all the weight: each program has loads of it under way in its
registers when it begins to wait for the launch before, and asks for the next as soon as one is
multiplied.

A program has 16 rows of the weight at a time, a tile, and its warps share the inputs. Threads load
rows as the matrix instruction of one warp wants them, four threads to a row and 16 bytes each, so
a weight goes from memory to the product through registers alone; which of a row's inputs a thread
holds only decides in which order they are added up. The instruction multiplies eight columns, and
the pieces of x that a warp has are laid over them, each as its digits (`digits`): a piece of the
weight is multiplied by all columns, of which its own count.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.digits import WHOLE, over, taken, unit_of
from quaver.nn.kernels.launch import on, processors, starting_early, turn
from quaver.nn.kernels.operands import Around, dtype_for, fitting
from quaver.nn.kernels.unpack import SIXTEENTH, unpacked
from quaver.nn.weight import Kept

TILE = 16  # rows of a matrix instruction
PIECE = 64  # bytes of a row, in four threads
MOST_TURNS = 16  # tiles of a program, whose code has them one after the other
DIGITS = tl.constexpr(WHOLE.count)


class Shape(NamedTuple):
    """How a product is cut."""

    programs: int  # a multiprocessor, at most
    warps: int
    ahead: int  # pieces of the weight under way


# Of what was tried on an H200 with Orpheus-3B's shapes, the fastest.
SHAPES = (Shape(1, 8, 12), Shape(2, 4, 6), Shape(1, 8, 16), Shape(1, 8, 12))


@triton.jit
def _nothing():
    """What tuples of tensors begin with."""
    return ()


@triton.jit
def _line(first, row, outputs, own: tl.constexpr, gated: tl.constexpr):
    """The row of the weight that is the row-th of a tile with outputs `first` on, and if there is
    one. A gated product's second eight are what the gates are for."""
    n = row
    line = first + row
    if gated:
        n = row % 8
        line = first + n + row // 8 * outputs
    return line, (n < own) & (first + n < outputs)


@triton.jit
def _asked(
    weight,
    first,
    step,
    number: tl.constexpr,
    pieces: tl.constexpr,
    each: tl.constexpr,
    warps: tl.constexpr,
    own: tl.constexpr,
    gated: tl.constexpr,
):
    """Each warp's piece of a tile, [2 * warps * 8, each], of which eight rows are a warp's load,
    and what it is scaled by, [warps, 16]: the `number`-th of all that a program has from output
    `first` on. Pieces of neighbouring warps lie side by side."""
    weight_pointer, scale_pointer, outputs, length, group, groups = weight
    first += number // pieces * step
    piece = number % pieces
    place = tl.arange(0, 16 * warps)
    line, there = _line(first, place // (8 * warps) * 8 + place % 8, outputs, own, gated)
    k = ((piece * warps + place // 8 % warps) * each)[:, None] + tl.arange(0, each)[None, :]
    inside = there[:, None] & (k < length)
    tile = weight_pointer + line[:, None].to(tl.int64) * length + k
    line, there = _line(first, tl.arange(0, 16), outputs, own, gated)
    g = (piece * warps + tl.arange(0, warps))[:, None] * (2 * each) // group
    scale = scale_pointer + line[None, :] * groups + g
    scale_inside = there[None, :] & (g < groups)
    return tl.load(tile, mask=inside, other=0), tl.load(scale, mask=scale_inside, other=0.0)


@triton.jit
def _multiplied(tile, warps: tl.constexpr):
    """What `_asked` loaded as it is multiplied, [warps, 16, each]: other names of places."""
    each: tl.constexpr = tile.shape[1]
    # As many neighbours as the instruction takes from a thread, as Triton 3.6 lays out its
    # operands; with others it would move the weight between threads.
    width: tl.constexpr = min(8, each // 8)
    tile = tl.reshape(tile, (2, warps, 8, 4, each // (8 * width), 2, width))
    return tl.reshape(tl.permute(tile, (1, 0, 2, 4, 5, 3, 6)), (warps, 16, each))


@triton.jit
def _columns(x, dtype: tl.constexpr):
    """Two pieces of x, in units [warps, 2, each] -> their digits [warps, each, 8], in the order of
    `_multiplied`: four columns each, the last of which is empty."""
    warps: tl.constexpr = x.shape[0]
    each: tl.constexpr = x.shape[2]
    width: tl.constexpr = min(8, each // 8)
    first, x = taken(x, True, False, False)
    second, x = taken(x, True, True, False)
    third = taken(x, True, True, True)[0]
    x = tl.join(tl.join(first, third), tl.join(second, tl.zeros(third.shape, third.dtype)))
    x = tl.reshape(x.to(dtype), (warps, 2, 4, each // (8 * width), 2, width, 4))
    return tl.reshape(tl.permute(x, (0, 3, 4, 2, 5, 1, 6)), (warps, each, 8))


@triton.jit
def _both(squares, most, other_squares, other_most):
    return squares + other_squares, tl.maximum(most, other_most)


@triton.jit
def _multiply(
    x_pointer,
    weight_pointer,
    scale_pointer,
    norm_pointer,
    residual_pointer,
    out_pointer,
    outputs,
    length,
    group,
    groups,
    eps,
    normed: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    dtype: tl.constexpr,
    warps: tl.constexpr,
    own: tl.constexpr,
    turns: tl.constexpr,
    pieces: tl.constexpr,
    each: tl.constexpr,
    ahead: tl.constexpr,
    early: tl.constexpr,
):
    """`turns` tiles of `own` outputs. A row of the weight has `length` bytes, and a warp `pieces`
    of it, `each` long."""
    sums: tl.constexpr = tl.int32 if dtype == tl.int8 else tl.float32
    inputs = length * 2
    # Programs' tiles lie side by side: rows that are far apart may share a channel of the memory.
    first = tl.program_id(0) * own
    step = tl.num_programs(0) * own
    weight = (weight_pointer, scale_pointer, outputs, length, group, groups)
    tiles = _nothing()
    scales = _nothing()
    for p in tl.static_range(min(ahead, turns * pieces)):
        tile, scale = _asked(weight, first, step, p, pieces, each, warps, own, gated)
        tiles += (tile,)
        scales += (scale,)
    # x, two pieces at a time
    parts: tl.constexpr = (pieces + 1) // 2
    k = tl.arange(0, 2)[None, :, None] * warps + tl.arange(0, warps)[:, None, None]
    k = k * (2 * each) + tl.arange(0, 2 * each)[None, None, :]
    norms = _nothing()
    if normed:
        for c in tl.static_range(parts):
            here = k + c * warps * 4 * each
            norms += (tl.load(norm_pointer + here, mask=here < inputs, other=0.0),)
    turn(early)
    xs = _nothing()
    for c in tl.static_range(parts):
        here = k + c * warps * 4 * each
        xs += (tl.load(x_pointer + here, mask=here < inputs, other=0.0),)
    n = tl.arange(0, 8 if gated else 16)
    residuals = _nothing()
    if added:
        for t in tl.static_range(turns):
            at = first + t * step + n
            inside = (n < own) & (at < outputs)
            residuals += (tl.load(residual_pointer + at, mask=inside, other=0.0),)
    squares = tl.zeros(xs[0].shape, tl.float32)
    most = squares
    for c in tl.static_range(parts):
        x = xs[c].to(tl.float32)
        squares += x * x
        if normed:
            x *= norms[c]
        most = tl.maximum(most, tl.abs(x))
    all_of: tl.constexpr = warps * 4 * each
    squares = tl.reshape(squares, (all_of,))
    squares, most = tl.reduce((squares, tl.reshape(most, (all_of,))), 0, _both)
    rms = 1.0
    if normed:
        rms = tl.rsqrt(squares / inputs + eps)
        most = (most * rms).to(xs[0].dtype).to(tl.float32)
    unit = unit_of(most, DIGITS, True)
    evens = _nothing()
    odds = _nothing()
    for c in tl.static_range(parts):
        x = xs[c]
        if normed:
            x = (x.to(tl.float32) * rms * norms[c]).to(x.dtype)
        x = over(x.to(tl.float32), unit, DIGITS)
        even, odd = tl.split(tl.reshape(x, (warps, 2, each, 2)))
        evens += (_columns(even, dtype),)
        odds += (_columns(odd, dtype),)
    column = tl.arange(0, 8)
    worth = ((127 - 7 * (column % 4)) << 23).to(tl.float32, bitcast=True)
    for t in tl.static_range(turns):
        total = tl.zeros((warps, 16, 8), tl.float32)
        for c in tl.static_range(pieces):
            tile = _multiplied(tiles[t * pieces + c], warps)
            if t * pieces + c + ahead < turns * pieces:
                later, scale = _asked(
                    weight, first, step, t * pieces + c + ahead, pieces, each, warps, own, gated
                )
                tiles += (later,)
                scales += (scale,)
            part = tl.zeros((warps, 16, 8), sums)
            even = unpacked(tile, None, 0, 1, dtype)
            part = tl.dot(even, evens[c // 2], part, out_dtype=sums)
            odd = unpacked(tile, None, 1, 1, dtype)
            part = tl.dot(odd, odds[c // 2], part, out_dtype=sums)
            counts = tl.where(column // 4 == c % 2, worth, 0.0)
            scale = scales[t * pieces + c].to(tl.float32)
            total += part.to(tl.float32) * (counts[None, None, :] * scale[:, :, None])
        y = tl.sum(tl.sum(total, 2), 0) * (unit * SIXTEENTH)
        if gated:
            gate, y = tl.split(tl.trans(tl.reshape(y, (2, 8))))
            y = gate / (1 + tl.exp(-gate)) * y
        if added:
            y += residuals[t].to(tl.float32)
        at = first + t * step + n
        y = y.to(out_pointer.dtype.element_ty)
        tl.store(out_pointer + at, y, mask=(n < own) & (at < outputs))


def nibbles(x: Tensor, weight: Kept, around: Around) -> Tensor:
    """x [1, in] times a weight of four bits -> [1, out]."""
    assert weight.scale is not None, "weights of four bits have scales"
    rows, length = weight.elements.shape
    inputs, outputs = length * 2, rows // 2 if around.gated else rows
    groups = weight.scale.shape[1]
    each = min(PIECE, inputs // groups // 2) if groups > 1 else PIECE
    shape = fitting(SHAPES, rows, inputs, around.gated)
    # outputs of a program, in tiles of as many each
    wanted = triton.cdiv(outputs, shape.programs * processors(x.device))
    tile = TILE // 2 if around.gated else TILE
    turns = min(MOST_TURNS, triton.cdiv(wanted, tile))
    own = min(tile, triton.cdiv(wanted, turns))
    out = torch.empty(1, outputs, dtype=x.dtype, device=x.device)
    with on(x.device):
        _multiply[(triton.cdiv(outputs, turns * own),)](
            x,
            weight.elements,
            weight.scale,
            around.norm,
            around.residual,
            out,
            outputs,
            length,
            inputs // groups,
            groups,
            around.eps,
            normed=around.norm is not None,
            gated=around.gated,
            added=around.residual is not None,
            dtype=dtype_for(x.dtype, WHOLE, x.is_cuda),
            warps=shape.warps,
            own=own,
            turns=turns,
            pieces=triton.cdiv(length, each * shape.warps),
            each=each,
            ahead=shape.ahead,
            num_warps=shape.warps,
            **starting_early(x.device),
        )
    return out
