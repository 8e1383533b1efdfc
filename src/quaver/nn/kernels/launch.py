"""What launches share: the right device, and counters of programs that are done."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

MOST_SUMS = 1 << 16  # of one launch that several programs share each
_TICKETS: dict[torch.device, Tensor] = {}


def on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def tickets(device: torch.device) -> Tensor:
    """Zeros, int32 [MOST_SUMS]: each program that shares a sum takes a number, and who gets the
    last finishes it and sets the count back. Launches follow each other, so all can share these."""
    if device not in _TICKETS:
        _TICKETS[device] = torch.zeros(MOST_SUMS, dtype=torch.int32, device=device)
    return _TICKETS[device]
