"""y = W x for one row x or two and weights of eight bits at most, as one or two streams decode:
`skinny` for those.

There a launch is as short as what its programs wait for one after the other: x, the sum of its
squares and its largest number, its digits, the products, their sums. All else is asked for before,
above all the weight: each program has loads of it under way in its registers when it begins to wait
for the launch before, and asks for the next as soon as one is multiplied. Its warps share inputs
and meet but twice, for x and for the sums of all that a program computes.

A program has 16 rows of the weight at a time, a tile. Threads load rows as the matrix instruction
of one warp wants them, four threads to a row and 16 bytes each, so a weight goes from memory to the
product through registers alone; which of a row's inputs a thread holds only decides in which order
they are added up. The instruction multiplies eight columns, and the pieces of x that a warp has are
laid over them, each as its digits (`digits`): a piece of the weight is multiplied by all columns,
of which its own count.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.digits import Digits, over, taken, unit_of
from quaver.nn.kernels.launch import on, processors, starting_early, turn
from quaver.nn.kernels.operands import Around, digits_for, dtype_for, fitting
from quaver.nn.kernels.unpack import SIXTEENTH, unpacked
from quaver.nn.weight import Kept, Packing

TILE = 16  # rows of a matrix instruction
COLUMNS = tl.constexpr(8)  # of it
PIECE = 64  # bytes of a row, in four threads
MOST_ROWS = 2  # a power of two; three take longer than a kernel of several
MOST_TURNS = 16  # tiles of a program, whose code has them one after the other


class Shape(NamedTuple):
    """How a product is cut."""

    programs: int  # a multiprocessor, at most
    warps: int
    ahead: int  # pieces of the weight under way


# Of what was tried on an H200 with Orpheus-3B's shapes, the fastest; of eight bits in fp8 alone.
SHAPES = {
    Packing.NONE: (Shape(2, 4, 10), Shape(1, 4, 20), Shape(1, 8, 16), Shape(2, 4, 12)),
    Packing.INT4: (Shape(1, 8, 12), Shape(1, 4, 12), Shape(1, 8, 16), Shape(2, 4, 12)),
    Packing.NF4: (Shape(4, 8, 3), Shape(4, 8, 3), Shape(4, 8, 8), Shape(4, 8, 3)),
}


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
    packs: tl.constexpr,
    warps: tl.constexpr,
    own: tl.constexpr,
    gated: tl.constexpr,
    grouped: tl.constexpr,
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
    place = weight_pointer + line[:, None].to(tl.int64) * length + k
    # read once, so nothing else need leave a cache for it
    tile = tl.load(place, mask=inside, other=0.0, eviction_policy="evict_first")
    scale = tl.full((warps, 16), 1.0, tl.float32)
    if grouped:
        line, there = _line(first, tl.arange(0, 16), outputs, own, gated)
        g = (piece * warps + tl.arange(0, warps))[:, None] * (each * packs) // group
        inside = there[None, :] & (g < groups)
        scale = tl.load(scale_pointer + line[None, :] * groups + g, mask=inside, other=0.0)
    return tile, scale


@triton.jit
def _multiplied(tile, warps: tl.constexpr, width: tl.constexpr):
    """What `_asked` loaded as it is multiplied, [warps, 16, each]: other names of places, if the
    instruction takes `width` neighbours from a thread."""
    each: tl.constexpr = tile.shape[1]
    tile = tl.reshape(tile, (2, warps, 8, 4, each // (8 * width), 2, width))
    return tl.reshape(tl.permute(tile, (1, 0, 2, 4, 5, 3, 6)), (warps, 16, each))


@triton.jit
def _columns(
    x, digits: tl.constexpr, whole: tl.constexpr, width: tl.constexpr, dtype: tl.constexpr
):
    """Pieces of x, in units [warps, pieces, rows, each] -> their digits [warps, each, 8], in the
    order of `_multiplied`; three digits have four columns, the last of which is empty."""
    warps: tl.constexpr = x.shape[0]
    pieces: tl.constexpr = x.shape[1]
    rows: tl.constexpr = x.shape[2]
    each: tl.constexpr = x.shape[3]
    if digits == 1:
        x = taken(x, whole, False, True)[0]
    elif digits == 2:
        first, x = taken(x, whole, False, False)
        x = tl.join(first, taken(x, whole, True, True)[0])
    elif digits == 3:
        first, x = taken(x, whole, False, False)
        second, x = taken(x, whole, True, False)
        third = taken(x, whole, True, True)[0]
        x = tl.join(tl.join(first, third), tl.join(second, tl.zeros(third.shape, third.dtype)))
    count: tl.constexpr = COLUMNS // (pieces * rows)
    places: tl.constexpr = each // (8 * width)
    x = tl.reshape(x.to(dtype), (warps, pieces, rows, 4, places, 2, width, count))
    return tl.reshape(tl.permute(x, (0, 4, 5, 3, 6, 1, 2, 7)), (warps, each, COLUMNS))


@triton.jit
def _both(squares, most, other_squares, other_most):
    return squares + other_squares, tl.maximum(most, other_most)


@triton.jit
def _together(tensors, count: tl.constexpr):
    """A tuple of `count` tensors [warps, 16, rows], a power of two -> [warps, 16, rows, count]."""
    found = tensors
    half: tl.constexpr = count // 2
    for level in tl.static_range(5):
        if half >> level > 0:
            joined = _nothing()
            for i in tl.static_range(half >> level):
                joined += (tl.join(found[i], found[i + (half >> level)]),)
            found = joined
    return tl.reshape(found[0], (tensors[0].shape[0], 16, tensors[0].shape[2], count))


@triton.jit
def _measured(xs, norms, inputs, eps, digits: tl.constexpr, whole: tl.constexpr):
    """Of rows in parts [warps, pieces, rows, each]: one over each row's root mean square, or 1.0,
    and what the first of its digits is worth, both [rows]. `norms` may be none."""
    rows: tl.constexpr = xs[0].shape[2]
    normed: tl.constexpr = len(norms) > 0
    squares = tl.zeros(xs[0].shape, tl.float32)
    most = squares
    for c in tl.static_range(len(xs)):
        x = xs[c].to(tl.float32)
        squares += x * x
        if normed:
            x *= norms[c]
        most = tl.maximum(most, tl.abs(x))
    if rows == 1:
        size: tl.constexpr = xs[0].numel
        squares = tl.reshape(squares, (1, size))
        squares, most = tl.reduce((squares, tl.reshape(most, (1, size))), 1, _both)
    else:
        squares, most = tl.reduce((squares, most), 3, _both)
        squares, most = tl.reduce((squares, most), 1, _both)
        squares, most = tl.reduce((squares, most), 0, _both)
    rms = tl.full((rows,), 1.0, tl.float32)
    unit = rms
    if normed:
        rms = tl.rsqrt(squares / inputs + eps)
        most = (most * rms).to(xs[0].dtype).to(tl.float32)
    if digits > 0:
        unit = unit_of(most, digits, whole)
    return rms, unit


@triton.jit
def _halves(x):
    """Every other input [warps, pieces, rows, each], from the first on and from the second on."""
    half: tl.constexpr = x.shape[3] // 2
    return tl.split(tl.reshape(x, (x.shape[0], x.shape[1], x.shape[2], half, 2)))


@triton.jit
def _laid(
    xs,
    norms,
    rms,
    unit,
    digits: tl.constexpr,
    whole: tl.constexpr,
    packs: tl.constexpr,
    width: tl.constexpr,
    dtype: tl.constexpr,
):
    """The columns of each part of x, and of inputs that meet the second of two weights in a byte
    those apart."""
    columns = _nothing()
    others = _nothing()
    for c in tl.static_range(len(xs)):
        x = xs[c]
        if len(norms) > 0:
            x = (x.to(tl.float32) * rms[None, None, :, None] * norms[c]).to(x.dtype)
        if digits > 0:
            x = over(x.to(tl.float32), unit[None, None, :, None], digits)
        if packs == 2:
            x, other = _halves(x)
            others += (_columns(other, digits, whole, width, dtype),)
        columns += (_columns(x, digits, whole, width, dtype),)
    return columns, others


@triton.jit
def _product(tile, levels_pointer, columns, others, kind: tl.constexpr):
    """A piece of the weight, as it is multiplied, times columns; or the first of two weights in a
    byte, and the second times others. [warps, 16, columns], fp32."""
    dtype: tl.constexpr = columns.dtype
    sums: tl.constexpr = tl.int32 if dtype == tl.int8 else tl.float32
    part = tl.zeros((tile.shape[0], 16, COLUMNS), sums)
    if kind == 0:
        if dtype != tl.float8e4nv:  # which is multiplied by both kinds of eight-bit floats
            tile = tile.to(dtype)
        part = tl.dot(tile, columns, part, out_dtype=sums)
    else:
        even = unpacked(tile, levels_pointer, 0, kind, dtype)
        part = tl.dot(even, columns, part, out_dtype=sums)
        odd = unpacked(tile, levels_pointer, 1, kind, dtype)
        part = tl.dot(odd, others, part, out_dtype=sums)
    return part.to(tl.float32)


@triton.jit
def _row(
    x_pointer,
    weight_pointer,
    scale_pointer,
    levels_pointer,
    norm_pointer,
    given_pointer,
    residual_pointer,
    out_pointer,
    outputs,
    length,
    group,
    groups,
    eps,
    kind: tl.constexpr,
    normed: tl.constexpr,
    given: tl.constexpr,
    digits: tl.constexpr,
    whole: tl.constexpr,
    many: tl.constexpr,
    gated: tl.constexpr,
    added: tl.constexpr,
    scaled: tl.constexpr,
    grouped: tl.constexpr,
    dtype: tl.constexpr,
    rows: tl.constexpr,
    warps: tl.constexpr,
    own: tl.constexpr,
    turns: tl.constexpr,
    block_turns: tl.constexpr,
    pieces: tl.constexpr,
    each: tl.constexpr,
    width: tl.constexpr,
    ahead: tl.constexpr,
    early: tl.constexpr,
):
    """`turns` tiles of `own` outputs. A row of the weight has `length` bytes, and a warp `pieces`
    of it, `each` long; x has columns for `many` of those at a time."""
    packs: tl.constexpr = 1 if kind == 0 else 2
    inputs = length * packs
    # Programs' tiles lie side by side: rows that are far apart may share a channel of the memory.
    first = tl.program_id(0) * own
    step = tl.num_programs(0) * own
    weight = (weight_pointer, scale_pointer, outputs, length, group, groups)
    tiles = _nothing()
    scales = _nothing()
    for p in tl.static_range(min(ahead, turns * pieces)):
        tile, scale = _asked(
            weight, first, step, p, pieces, each, packs, warps, own, gated, grouped
        )
        tiles += (tile,)
        scales += (scale,)
    # of all tiles, [outputs of a tile, tiles]
    begins = first + tl.arange(0, block_turns)[None, :] * step
    begins = tl.where(tl.arange(0, block_turns)[None, :] < turns, begins, outputs)
    n = tl.arange(0, 8 if gated else 16)[:, None]
    at = begins + n
    inside = (n < own) & (at < outputs)
    line, there = _line(begins, tl.arange(0, 16)[:, None], outputs, own, gated)
    whole_scale = tl.full(line.shape, 1.0, tl.float32)
    if scaled:
        whole_scale = tl.load(scale_pointer + line, mask=there, other=0.0)
    parts: tl.constexpr = (pieces + many - 1) // many
    k = tl.arange(0, many)[:, None, None] * warps + tl.arange(0, warps)[:, None, None, None]
    k = k * (each * packs) + tl.arange(0, each * packs)
    row = tl.arange(0, rows)[:, None]
    norms = _nothing()
    if normed:
        for c in tl.static_range(parts):
            here = k + c * many * warps * each * packs
            norms += (tl.load(norm_pointer + here, mask=here < inputs, other=0.0),)
    turn(early)
    xs = _nothing()
    for c in tl.static_range(parts):
        here = k + c * many * warps * each * packs
        xs += (tl.load(x_pointer + row * inputs + here, mask=here < inputs, other=0.0),)
    at = at[:, None, :] + row * outputs
    inside = inside[:, None, :]
    residual = tl.zeros(at.shape, xs[0].dtype)
    if added:
        residual = tl.load(residual_pointer + at, mask=inside, other=0.0)
    rms = tl.full((rows,), 1.0, tl.float32)
    unit = rms
    if normed or (digits > 0 and not given):
        rms, unit = _measured(xs, norms, inputs, eps, 0 if given else digits, whole)
    if given:
        unit *= tl.load(given_pointer).to(tl.float32)
    columns, others = _laid(xs, norms, rms, unit, digits, whole, packs, width, dtype)
    column = tl.arange(0, COLUMNS)
    count: tl.constexpr = COLUMNS // (many * rows)  # of digits of a number
    digit = column % count
    worth = ((127 - (7 if whole else 4) * digit) << 23).to(tl.float32, bitcast=True)
    worth = tl.where(digit < max(1, digits), worth, 0.0)
    totals = _nothing()
    for t in tl.static_range(turns):
        total = tl.zeros((warps, 16, COLUMNS), tl.float32)
        for c in tl.static_range(pieces):
            tile = _multiplied(tiles[t * pieces + c], warps, width)
            scale = scales[t * pieces + c]
            if t * pieces + c + ahead < turns * pieces:
                later, later_scale = _asked(
                    weight,
                    first,
                    step,
                    t * pieces + c + ahead,
                    pieces,
                    each,
                    packs,
                    warps,
                    own,
                    gated,
                    grouped,
                )
                tiles += (later,)
                scales += (later_scale,)
            other = others[c // many] if packs == 2 else columns[c // many]
            part = _product(tile, levels_pointer, columns[c // many], other, kind)
            counts = tl.where(column // (COLUMNS // many) == c % many, worth, 0.0)[None, None, :]
            if grouped:
                counts = counts * scale.to(tl.float32)[:, :, None]
            total += part * counts
        if rows == 1:
            totals += (tl.sum(total, 2)[:, :, None],)
        else:
            total = tl.reshape(total, (warps, 16, many, rows, count))
            totals += (tl.sum(tl.sum(total, 4), 2),)
    for _ in tl.static_range(block_turns - turns):
        totals += (tl.zeros((warps, 16, rows), tl.float32),)
    if kind == 1:
        unit *= SIXTEENTH
    y = tl.sum(_together(totals, block_turns), 0)
    y *= unit[:, None] * whole_scale.to(tl.float32)[:, None, :]
    if gated:
        y = tl.reshape(y, (2, 8, rows, block_turns))
        gate, y = tl.split(tl.permute(y, (1, 2, 3, 0)))
        y = gate / (1 + tl.exp(-gate)) * y
    if added:
        y += residual.to(tl.float32)
    tl.store(out_pointer + at, y.to(out_pointer.dtype.element_ty), mask=inside)


def fits(weight: Kept, rows: int) -> bool:
    """Whether `row` takes so many rows."""
    return rows <= MOST_ROWS and weight.elements.itemsize == 1


def row(x: Tensor, weight: Kept, around: Around) -> Tensor:
    """x [rows, in] times a weight -> [rows, out]."""
    rows = x.shape[0]
    digits = digits_for(weight, rows, around.rounded)
    packs = 1 if weight.packing is Packing.NONE else 2
    lines, length = weight.elements.shape
    inputs, outputs = length * packs, lines // 2 if around.gated else lines
    groups = 1 if weight.scale is None else weight.scale.shape[1]
    each = min(PIECE, inputs // groups // packs) if groups > 1 else PIECE
    shape = fitting(SHAPES[weight.packing], lines, inputs, around.gated)
    # outputs of a program, in tiles of as many each
    wanted = triton.cdiv(outputs, shape.programs * processors(x.device))
    tile = TILE // 2 if around.gated else TILE
    turns = min(MOST_TURNS, triton.cdiv(wanted, tile))
    own = min(tile, triton.cdiv(wanted, turns))
    dtype = dtype_for(x.dtype, digits, x.is_cuda)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    with on(x.device):
        _row[(triton.cdiv(outputs, turns * own),)](
            x,
            weight.elements,
            weight.scale,
            weight.levels,
            around.norm,
            around.step,
            around.residual,
            out,
            outputs,
            length,
            inputs // groups,
            groups,
            around.eps,
            kind=weight.packing.value,
            normed=around.norm is not None,
            given=around.step is not None,
            digits=digits.count,
            whole=digits.whole,
            many=COLUMNS.value // (digits.columns * rows),
            gated=around.gated,
            added=around.residual is not None,
            scaled=weight.scale is not None and groups == 1,
            grouped=groups > 1,
            dtype=dtype,
            rows=rows,
            warps=shape.warps,
            own=own,
            turns=turns,
            block_turns=triton.next_power_of_2(turns),
            pieces=triton.cdiv(length, each * shape.warps),
            each=each,
            width=min(_width(dtype, digits), each // 8),
            ahead=shape.ahead,
            num_warps=shape.warps,
            **starting_early(x.device),
        )
    return out


def _width(dtype: tl.dtype, digits: Digits) -> int:
    """Neighbours that an instruction takes from a thread, as Triton 3.6 lays out its operands;
    with others it would move the weight between threads."""
    if dtype.primitive_bitwidth > 8:
        return 2
    return 4 if digits.count == 1 else 8
