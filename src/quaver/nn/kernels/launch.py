"""What launches share: the right device, counters of programs that are done, and starting early."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_SUMS = 1 << 16  # of one launch that several programs share each
EARLY = 9, 0  # compute capability, from which a launch may start before the one before has ended
_TICKETS: dict[torch.device, Tensor] = {}


def on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def processors(device: torch.device) -> int:
    """How many programs run at once, at least."""
    if device.type != "cuda":
        return 2  # Triton's interpreter, where only the result counts
    return torch.cuda.get_device_properties(device).multi_processor_count


def shared_memory(device: torch.device) -> int:
    """Bytes that a program can share."""
    if device.type != "cuda":
        return 1 << 20  # Triton's interpreter, which has as much as it likes
    known = torch.cuda.get_device_properties(device)
    return int(known.shared_memory_per_block_optin)  # type: ignore[attr-defined]


def splits_of(blocks: int, others: int, programs: float, most: int, device: torch.device) -> int:
    """Into how many stretches, `most` at most, so many blocks are cut for so many programs each,
    that every multiprocessor has `programs` at work."""
    if device.type != "cuda":
        return min(2, blocks)  # Triton's interpreter, where only the result counts
    wanted = int(programs * processors(device))
    return max(1, min(wanted // others, blocks, most))


def tickets(device: torch.device) -> Tensor:
    """Zeros, int32 [MOST_SUMS]: each program that shares a sum takes a number, and who gets the
    last finishes it and sets the count back. Launches follow each other, so all can share these."""
    if device not in _TICKETS:
        _TICKETS[device] = torch.zeros(MOST_SUMS, dtype=torch.int32, device=device)
    return _TICKETS[device]


@cache
def starting_early(device: torch.device) -> dict[str, Any]:
    """Arguments of a kernel that calls `turn`: it is launched while the one before it runs."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= EARLY
    return {"early": True, "launch_pdl": True} if able else {"early": False}


@triton.jit
def turn(early: tl.constexpr) -> None:
    """Wait until all launches before have ended, and let the next one start.

    In front of it a kernel may read what no launch writes, such as weights, and what was written
    two launches before: the one before could only let this one start when those had ended.
    """
    if early:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def meet() -> None:
    """Wait for all threads of the program, and see what they stored.

    In place of `tl.debug_barrier`, where a loop with that inside would make no loads ahead.
    """
    tl.inline_asm_elementwise(
        "bar.sync 0; mov.u32 $0, $1;", "=r,r", [0], dtype=tl.int32, is_pure=False, pack=1
    )
