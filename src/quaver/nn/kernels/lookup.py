"""Rows of a table for what was chosen, in one launch that the next product need not wait for."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.launch import on, starting_early, turn


@triton.jit
def _lookup(
    choice_pointer,
    table_pointer,
    out_pointer,
    width,
    first,
    last,
    beyond,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0)
    column = tl.arange(0, block)
    turn(early)
    choice = tl.load(choice_pointer + row)
    token = tl.where(choice > last, beyond, first + choice)
    found = tl.load(table_pointer + token * width + column, mask=column < width, other=0.0)
    tl.store(out_pointer + row * width + column, found, mask=column < width)


def lookup(table: Tensor, choice: Tensor, first: int, last: int, beyond: int) -> Tensor:
    """Choices [n], int64 -> rows `first + choice` of a table [rows, width], contiguous, and row
    `beyond` for a choice beyond `last` [n, width]."""
    out = table.new_empty(len(choice), table.shape[1])
    width = table.shape[1]
    with on(table.device):
        _lookup[(len(choice),)](
            choice,
            table,
            out,
            width,
            first,
            last,
            beyond,
            block=triton.next_power_of_2(width),
            num_warps=4,
            **starting_early(table.device),
        )
    return out
