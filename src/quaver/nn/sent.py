"""Moving small things to a GPU that is at work."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """x on `device`. Nobody waits for what a GPU does before it gets there, as a copy from memory
    that is not pinned would."""
    if device.type != "cuda" or x.is_cuda:
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
