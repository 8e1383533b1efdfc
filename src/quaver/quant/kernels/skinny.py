"""y = x W^T for a few rows of x, reading W once in the bits that it is kept in.

Decoding multiplies each weight with one row a stream, so its time is that of reading the weight.
Elements become bf16 in registers, products are summed in fp32, and a row's or group's scale is
applied to sums. Where there are fewer column blocks than a GPU has multiprocessors, the inputs are
split among more programs, whose sums are added at the end.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.precision import Format
from quaver.quant.layer import FEW_ROWS
from quaver.quant.nf4 import LEVELS

COLUMNS = 32  # outputs of a program
INPUTS = 128  # inputs of one turn of its loop: never more than share a scale

KINDS = {Format.INT4: 1, Format.NF4: 2}  # of elements; 0 stands for one that needs no unpacking


@triton.jit
def _skinny(
    x_pointer,
    weight_pointer,
    scale_pointer,
    levels_pointer,
    out_pointer,
    rows,
    columns,
    inputs,
    group,
    groups,
    turns,
    kind: tl.constexpr,
    dtype: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_inputs: tl.constexpr,
):
    """One block of columns, one stretch of `turns` blocks of inputs.

    Out is [splits, rows, columns].
    """
    n = tl.program_id(0) * block_columns + tl.arange(0, block_columns)
    split = tl.program_id(1)
    m = tl.arange(0, block_rows)
    total = tl.zeros((block_rows, block_columns), tl.float32)
    for turn in range(turns):
        first = (split * turns + turn) * block_inputs
        if kind == 0:
            k = first + tl.arange(0, block_inputs)
            inside = (n[:, None] < columns) & (k[None, :] < inputs)
            w = tl.load(
                weight_pointer + n[:, None].to(tl.int64) * inputs + k[None, :],
                mask=inside,
                other=0.0,
            )
            x = tl.load(
                x_pointer + m[:, None] * inputs + k[None, :],
                mask=(m[:, None] < rows) & (k[None, :] < inputs),
                other=0.0,
            )
            part = tl.dot(x.to(dtype), tl.trans(w.to(dtype)))
        else:
            # two to a byte: even and odd inputs are two products
            k = first // 2 + tl.arange(0, block_inputs // 2)
            inside = (n[:, None] < columns) & (k[None, :] < inputs // 2)
            pair = tl.load(
                weight_pointer + n[:, None].to(tl.int64) * (inputs // 2) + k[None, :],
                mask=inside,
                other=0,
            ).to(tl.int32)
            low, high = pair & 15, pair >> 4
            if kind == 1:
                even = (low - 8).to(dtype)
                odd = (high - 8).to(dtype)
            else:
                even = tl.load(levels_pointer + high).to(dtype)
                odd = tl.load(levels_pointer + low).to(dtype)
            there = (m[:, None] < rows) & (k[None, :] < inputs // 2)
            place = x_pointer + m[:, None] * inputs + 2 * k[None, :]
            part = tl.dot(tl.load(place, mask=there, other=0.0).to(dtype), tl.trans(even))
            part += tl.dot(tl.load(place + 1, mask=there, other=0.0).to(dtype), tl.trans(odd))
        scale = tl.load(
            scale_pointer + n * groups + first // group,
            mask=(n < columns) & (first < inputs),
            other=0.0,
        )
        total += part * scale.to(tl.float32)[None, :]
    out = out_pointer + (split * rows + m[:, None]) * columns + n[None, :]
    tl.store(out, total, mask=(m[:, None] < rows) & (n[None, :] < columns))


def skinny_product(x: Tensor, elements: Tensor, scale: Tensor, kept: Format) -> Tensor:
    """x bf16 [rows, in], at most `FEW_ROWS`, times a weight as `QuantisedWeight` keeps it.

    Returns bf16 [rows, out]. The inputs that share a scale must be a multiple of `INPUTS`, or of
    64, or all of a row.
    """
    rows, inputs = x.shape
    columns, groups = scale.shape
    group = inputs // groups
    block = min(INPUTS, group) if groups > 1 else INPUTS
    blocks = triton.cdiv(inputs, block)
    splits = _splits(triton.cdiv(columns, COLUMNS), blocks, x.device)
    turns = triton.cdiv(blocks, splits)
    out = torch.empty(splits, rows, columns, dtype=torch.float32, device=x.device)
    # Triton launches on the current device
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        _skinny[(triton.cdiv(columns, COLUMNS), splits)](
            x.contiguous(),
            elements,
            scale,
            _levels(x.device),
            out,
            rows,
            columns,
            inputs,
            group,
            groups,
            turns,
            kind=KINDS.get(kept, 0),
            # Triton's interpreter has no products of bf16
            dtype=tl.bfloat16 if x.is_cuda else tl.float32,
            block_rows=FEW_ROWS,
            block_columns=COLUMNS,
            block_inputs=block,
        )
    return (out[0] if splits == 1 else out.sum(0)).to(x.dtype)


def _splits(blocks_of_columns: int, blocks_of_inputs: int, device: torch.device) -> int:
    """Into how many stretches inputs are cut, so that two programs a multiprocessor have work."""
    if device.type != "cuda":
        return min(2, blocks_of_inputs)  # Triton's interpreter, where only the result counts
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(wanted // blocks_of_columns, blocks_of_inputs, 8))


_TABLES: dict[torch.device, Tensor] = {}


def _levels(device: torch.device) -> Tensor:
    """NormalFloat's levels where the kernel can read them."""
    if device not in _TABLES:
        _TABLES[device] = torch.tensor(LEVELS, device=device)
    return _TABLES[device]
