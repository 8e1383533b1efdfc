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
        if x.is_cuda:
            return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)
        # On a CPU that is ten small operations. A layer norm is one, in fp32 inside, and computes
        # the same of x beside -x, whose mean is zero: a step of the bundled voice takes 7 % less.
        both, weight = torch.cat((x, -x), dim=-1), torch.cat((self.weight, self.weight))
        return F.layer_norm(both, weight.shape, weight, None, self.eps)[..., : x.shape[-1]]
