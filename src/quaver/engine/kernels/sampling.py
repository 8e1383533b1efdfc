"""The sampler in one launch: from the logits of a position to choices, for all streams at once.

One program a stream holds all its logits. What top-k and top-p leave out is found without sorting:
a logit stays if fewer than k are larger, or if the larger ones have less than p of the probability,
and both hold for all logits from some value on, which bisection over the 32 bits of a float finds.
`Sampler` in plain PyTorch says what all this computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.launch import on, starting_early, turn
from quaver.nn.kernels.random import mixed, uniform

if TYPE_CHECKING:
    from quaver.engine.sampling import SamplerState

LOWEST, HIGHEST = -(2**31), 2**31 - 1
WARPS = 8  # of a stream


@triton.jit
def _rank(x):
    """Floats as int32 of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _first_with_less(rank, weight, limit, lowest: tl.constexpr, highest: tl.constexpr):
    """The least int32 beyond which the weights add up to less than `limit`."""
    low = tl.full((), lowest, tl.int64)
    high = tl.full((), highest, tl.int64)
    while low < high:
        middle = (low + high) >> 1
        beyond = tl.sum(tl.where(rank > middle.to(tl.int32), weight, 0.0), 0)
        enough = beyond < limit
        high = tl.where(enough, middle, high)
        low = tl.where(enough, low, middle + 1)
    return low.to(tl.int32)


@triton.jit
def _choose(
    logits_pointer,
    choice_pointer,
    temperature_pointer,
    top_k_pointer,
    top_p_pointer,
    min_p_pointer,
    penalty_pointer,
    key_pointer,
    made_pointer,
    seen_pointer,
    window_pointer,
    written_pointer,
    ring_pointer,
    choices,
    logits_stride,
    seen_stride,
    start,
    ring_size,
    windows: tl.constexpr,
    lowest: tl.constexpr,
    highest: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """One stream. `start` is where this position's choices begin among all that can be seen."""
    slot = tl.program_id(0)
    column = tl.arange(0, block)
    inside = column < choices
    # Before the wait: all of this was written when the sampler ran last, and the launch of a head
    # stands between.
    seen = seen_pointer + slot * seen_stride + start
    penalised = tl.load(seen + column, mask=inside, other=0) > 0
    penalty, temperature = tl.load(penalty_pointer + slot), tl.load(temperature_pointer + slot)
    top_k, top_p = tl.load(top_k_pointer + slot), tl.load(top_p_pointer + slot)
    min_p, made = tl.load(min_p_pointer + slot), tl.load(made_pointer + slot)
    key = mixed(tl.load(key_pointer + slot).to(tl.uint32) ^ made.to(tl.uint32))
    noise = -tl.log(-tl.log(uniform(key, column.to(tl.uint32))))
    turn(early)
    x = tl.load(logits_pointer + slot * logits_stride + column, mask=inside, other=-float("inf"))
    x = x.to(tl.float32)
    worse = tl.where(x > 0, tl.div_rn(x, penalty), x * penalty)
    x = tl.where(penalised, worse, x)
    greedy = temperature == 0
    x = tl.div_rn(x, tl.where(greedy, 1.0, temperature))
    rank = _rank(x)
    if top_k > 0:
        one = tl.where(inside, 1.0, 0.0)
        least = _first_with_less(rank, one, top_k.to(tl.float32), lowest, highest)
        x = tl.where(rank >= least, x, -float("inf"))
    weight = tl.exp(x - tl.max(x, 0))
    if top_p < 1:
        least = _first_with_less(rank, weight, top_p * tl.sum(weight, 0), lowest, highest)
        x = tl.where(rank >= least, x, -float("inf"))
    x = tl.where(weight >= min_p, x, -float("inf"))
    # Gumbel's trick: the largest of logit + noise is a draw from their softmax
    choice = tl.argmax(tl.where(greedy, x, x + noise), 0)
    tl.store(choice_pointer + slot, choice.to(tl.int64))
    tl.store(made_pointer + slot, made + 1)
    entry = start + choice
    row = seen_pointer + slot * seen_stride
    count = tl.load(row + entry)
    if windows:
        window, written = tl.load(window_pointer + slot), tl.load(written_pointer + slot)
        ring = ring_pointer + slot * ring_size
        full = (window > 0) & (written >= window)
        # of whole numbers, the remainder of a negative one is negative
        leaving = tl.load(ring + (written - window + ring_size) % ring_size)
        left = tl.load(row + leaving)
        moves = full & (leaving != entry)
        tl.store(row + leaving, left - 1, mask=moves)
        tl.store(row + entry, count + 1, mask=moves | (full == 0))
        tl.store(ring + written % ring_size, entry.to(tl.int64))
        tl.store(written_pointer + slot, written + 1)
    else:
        tl.store(row + entry, count + 1)


def choose(state: SamplerState, start: int, logits: Tensor, windows: bool) -> Tensor:
    """Logits [n, choices] of the first n streams -> choices [n], which count as seen."""
    n, choices = logits.shape
    choice = torch.empty(n, dtype=torch.int64, device=logits.device)
    with on(logits.device):
        _choose[(n,)](
            logits,
            choice,
            state.temperature,
            state.top_k,
            state.top_p,
            state.min_p,
            state.penalty,
            state.key,
            state.made,
            state.seen,
            state.window,
            state.written,
            state.ring,
            choices,
            logits.stride(0),
            state.seen.stride(0),
            start,
            state.ring.shape[1],
            windows=windows,
            lowest=LOWEST,
            highest=HIGHEST,
            block=triton.next_power_of_2(choices),
            num_warps=WARPS,
            **starting_early(logits.device),
        )
    return choice
