"""Smoothing: what makes a layer's inputs hard to round moves into its weights (SmoothQuant,
Xiao et al., 2023).

Inputs x are divided by a number for each channel and the weight's columns multiplied by it, which
changes nothing but where the large numbers are. The division is folded into the norm before.
"""

from __future__ import annotations

from torch import Tensor

STRENGTH = 0.5  # how much of the spread moves, alpha in the paper
LEAST = 1e-5


def smoothing(largest_input: Tensor, weight: Tensor) -> Tensor:
    """Divisors [in] of inputs whose channels reach `largest_input` [in], for a weight [out, in]."""
    inputs = largest_input.float()
    columns = weight.float().abs().amax(dim=0)
    divisors = inputs.pow(STRENGTH) / columns.clamp(min=LEAST).pow(1 - STRENGTH)
    divisors[(inputs == 0) | (columns == 0)] = 1.0
    return divisors.clamp(min=LEAST)
