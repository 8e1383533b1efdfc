"""Moving small things to a GPU that is at work, and from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fetched:
    """A tensor on its way to the host."""

    host: Tensor
    done: torch.cuda.Event | None  # it is there when that has happened

    @property
    def over(self) -> bool:
        return self.done is None or self.done.query()

    def wait(self) -> Tensor:
        if self.done is not None:
            self.done.synchronize()
        return self.host


def sent(x: Tensor, device: torch.device) -> Tensor:
    """x on `device`. Nobody waits for what a GPU does before it gets there, as a copy from memory
    that is not pinned would."""
    if device.type != "cuda" or x.is_cuda:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def fetched(x: Tensor) -> Fetched:
    """A copy of x for the host, which what comes next may overwrite: a GPU copies it in its turn,
    for which nobody waits here."""
    if not x.is_cuda:
        return Fetched(x.clone(), None)
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return Fetched(host, done)
