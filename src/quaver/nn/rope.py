"""Rotary position embedding (Su et al., 2021), half-split pairs as in Hugging Face's Llama.

The Llama 3 scaling stretches slow frequencies by `factor`, leaves fast ones, and blends between
(Llama 3.1 model card; the same arithmetic as transformers' `rope_type: llama3`). Leaving it out
gives speech that skips words, so it has a parity test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Parameters of the frequency-dependent stretch."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def apply(self, frequencies: Tensor) -> Tensor:
        """Angular frequencies [d/2] in radians a token -> the same, scaled."""
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = blend.clamp(0.0, 1.0)
        return frequencies * (blend + (1.0 - blend) / self.factor)


class RotaryEmbedding(nn.Module):
    """Cosines and sines by position, made once for `max_positions` in fp32."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self, head_dim: int, theta: float, scaling: Llama3Scaling | None, max_positions: int
    ) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        frequencies = 1.0 / theta**exponent
        if scaling is not None:
            frequencies = scaling.apply(frequencies)
        positions = torch.arange(max_positions, dtype=torch.float32, device="cpu")
        angles = torch.outer(positions, frequencies)
        # for both halves of a head; the first half's sine is negated, see `rotate`
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos", torch.cat((cos, cos), dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=-1), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [n, t] -> cos and sin, each [n, 1, t, head_dim]."""
        return self.cos[positions][:, None], self.sin[positions][:, None]


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn x [n, heads, t, head_dim] by its positions, in fp32; returns the dtype of x."""
    cos, sin = rope
    wide = x.float()
    other = wide.roll(x.shape[-1] // 2, dims=-1)  # each number's partner in the other half
    return torch.addcmul(wide * cos, other, sin).to(x.dtype)
