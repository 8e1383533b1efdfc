"""Sampling does what transformers' processors do, in their order, and draws what it says."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from late import Late
from quaver.core.protocols import Prompt
from quaver.core.types import SamplingParams
from quaver.engine.sampling import MAX_WINDOW, Sampler, penalise, truncate

reference = Late("transformers.generation.logits_process")

EVERYTHING = {"top_p": 1.0, "repetition_penalty": 1.0}
NO_PROMPT = Prompt((1,))


def random_logits(count: int, seed: int, spread: float = 3.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, spread, count)).float()


def column(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor([[value]], dtype=dtype)


def ours(logits: Tensor, seen: list[int], params: SamplingParams) -> Tensor:
    mask = torch.zeros(1, len(logits), dtype=torch.bool)
    mask[0, seen] = True
    scores = penalise(logits[None], mask, column(params.repetition_penalty)) / params.temperature
    top_k = column(params.top_k, torch.int64)
    return truncate(scores, top_k, column(params.top_p), column(params.min_p))[0]


def theirs(logits: Tensor, seen: list[int], params: SamplingParams) -> Tensor:
    processors = reference.LogitsProcessorList(
        [
            reference.RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
            reference.TemperatureLogitsWarper(params.temperature),
        ]
    )
    if params.top_k:
        processors.append(reference.TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        processors.append(reference.TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(reference.MinPLogitsWarper(params.min_p))
    result: Tensor = processors(torch.tensor([seen], dtype=torch.int64), logits[None].clone())
    return result[0]


parameters = st.builds(
    SamplingParams,
    temperature=st.floats(0.05, 3.0),
    top_k=st.integers(0, 70),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 0.9),
    repetition_penalty=st.floats(0.3, 3.0),
)


def on_an_edge(logits: Tensor, seen: list[int], params: SamplingParams) -> bool:
    """Whether rounding decides what top-p or min-p keep."""
    open_ = SamplingParams(params.temperature, params.top_k, 1.0, 0.0, params.repetition_penalty)
    ranked = theirs(logits, seen, open_).double().softmax(-1).sort(descending=True).values
    before = ranked.cumsum(-1) - ranked
    near_p = (before - params.top_p).abs().min() < 1e-5
    near_min = (ranked - params.min_p * ranked[0]).abs().min() < 1e-6
    return bool(near_p or near_min)


@settings(max_examples=300)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1), st.floats(0.1, 8.0), parameters, st.data())
def test_the_same_choices_are_left_with_the_same_scores(count, seed, spread, params, data):
    logits = random_logits(count, seed, spread)
    seen = data.draw(st.lists(st.integers(0, count - 1), max_size=6))
    assume(not on_an_edge(logits, seen, params))
    assert torch.allclose(ours(logits, seen, params), theirs(logits, seen, params), atol=1e-5)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 999), parameters), min_size=2, max_size=5))
def test_rows_have_parameters_of_their_own(rows):
    logits = torch.stack([random_logits(20, seed) for seed, _ in rows])

    def columns(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor([[getattr(params, name)] for _, params in rows], dtype=dtype)

    together = truncate(logits, columns("top_k", torch.int64), columns("top_p"), columns("min_p"))
    for row, alone, (_, params) in zip(together, logits, rows, strict=True):
        top_k = column(params.top_k, torch.int64)
        expected = truncate(alone[None], top_k, column(params.top_p), column(params.min_p))
        assert torch.equal(row, expected[0])


def test_what_top_k_leaves_out_stays_out_however_sums_round():
    """The probabilities that stay may add up to a little less than one, and top-p be one."""
    logits = torch.stack([random_logits(300, seed) for seed in range(500)])
    rows = len(logits)
    kept = truncate(
        logits,
        column(7, torch.int64).expand(rows, 1),
        column(1.0).expand(rows, 1),
        column(0.0).expand(rows, 1),
    )
    assert (kept.isfinite().sum(dim=-1) == 7).all()


def test_the_most_probable_choice_always_stays():
    logits = random_logits(50, seed=0)
    kept = truncate(logits[None], column(0, torch.int64), column(1e-6), column(0.99))
    assert kept.isfinite().sum() == 1
    assert kept.argmax() == logits.argmax()


def sampler_of(*streams: tuple[SamplingParams, int], choices=(8,), device="cpu") -> Sampler:
    sampler = Sampler(len(streams), choices, torch.device(device))
    for slot, (params, seed) in enumerate(streams):
        sampler.open(slot, params, seed, NO_PROMPT)
    return sampler


def drawn(sampler: Sampler, logits: Tensor, count: int) -> Tensor:
    """Choices [count, n] at position 0 from logits [n, choices]."""
    return torch.stack([sampler(0, logits) for _ in range(count)]).cpu()


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, **EVERYTHING),
        SamplingParams(temperature=0.5, **EVERYTHING),
        SamplingParams(temperature=1.5, top_p=0.7, repetition_penalty=1.0),
        SamplingParams(temperature=1.0, top_k=4, **EVERYTHING),
        SamplingParams(temperature=1.0, min_p=0.2, **EVERYTHING),
    ],
    ids=["plain", "cold", "top_p", "top_k", "min_p"],
)
def test_choices_are_drawn_as_often_as_softmax_says(device, params):
    draws, streams = 400, 50
    logits = random_logits(12, seed=1, spread=1.0)
    rows = logits.to(device).expand(streams, -1)
    sampler = sampler_of(*((params, s) for s in range(streams)), choices=(12,), device=device)
    counts = drawn(sampler, rows, draws).flatten().bincount(minlength=12)
    probability = theirs(logits, [], params).double().softmax(-1)
    possible = probability > 0
    assert counts[~possible].sum() == 0
    expected = probability[possible] * draws * streams
    assert chisquare(counts[possible].numpy(), expected.numpy()).pvalue > 1e-3


def test_neighbouring_draws_of_one_stream_are_independent():
    params = SamplingParams(temperature=1.0, **EVERYTHING)
    said = drawn(sampler_of((params, 7), choices=(4,)), torch.zeros(1, 4), 4000)[:, 0]
    pairs = (said[:-1] * 4 + said[1:]).bincount(minlength=16)
    assert chisquare(pairs.numpy()).pvalue > 1e-3


def test_temperature_zero_takes_the_most_probable_choice(device):
    logits = torch.stack([random_logits(30, seed) for seed in range(3)]).to(device)
    params = SamplingParams(temperature=0.0, repetition_penalty=1.0)
    sampler = sampler_of(*((params, s) for s in range(3)), choices=(30,), device=device)
    assert torch.equal(drawn(sampler, logits, 5), logits.argmax(-1).cpu().expand(5, -1))


def test_a_seed_repeats_and_another_differs():
    params, logits = SamplingParams(temperature=1.0, **EVERYTHING), torch.zeros(1, 1000)

    def said(seed: int) -> list[int]:
        return drawn(sampler_of((params, seed), choices=(1000,)), logits, 20).flatten().tolist()

    seeds = (0, 1, 2, 2**32, 2**63 - 1)
    assert all(said(seed) == said(seed) for seed in seeds)
    assert len({tuple(said(seed)) for seed in seeds}) == len(seeds)
    assert len(set(said(0))) > 15  # choices differ along a stream


def test_what_a_stream_draws_does_not_depend_on_its_neighbours():
    logits = random_logits(40, seed=3)
    own = (SamplingParams(temperature=0.9, repetition_penalty=1.2), 11)
    others = [
        (SamplingParams(temperature=0.0), 5),
        (SamplingParams(temperature=2.0, top_k=3, repetition_window=2), 6),
    ]
    alone = drawn(sampler_of(own, choices=(40,)), logits[None], 30)[:, 0]
    for slot in range(3):
        streams = [*others[:slot], own, *others[slot:]]
        rows = torch.stack([random_logits(40, seed=s) for s in range(3)])
        rows[slot] = logits
        beside = drawn(sampler_of(*streams, choices=(40,)), rows, 30)[:, slot]
        assert torch.equal(beside, alone)


def test_a_reopened_slot_remembers_nothing():
    params = SamplingParams(temperature=1.0, repetition_penalty=3.0, repetition_window=5)
    sampler, logits = sampler_of((params, 1), choices=(10,)), random_logits(10, seed=0)[None]
    fresh = drawn(sampler, logits, 25)
    sampler.close(0)
    sampler.open(0, params, 1, NO_PROMPT)
    assert torch.equal(drawn(sampler, logits, 25), fresh)


def simulate(window: int, spoken: list[tuple[int, int]], choices: tuple[int, ...], frames: int):
    """Greedy choices of the sampler, and of a plain queue of the last `window` of them."""
    params = SamplingParams(
        temperature=0.0, top_p=1.0, repetition_penalty=1.5, repetition_window=window
    )
    sampler = Sampler(1, choices, torch.device("cpu"))
    sampler.open(0, params, 0, Prompt((1,), tuple(spoken)))
    memory = deque(spoken, maxlen=window or None)
    said, expected, random = [], [], np.random.default_rng(window)
    for position, count in [*enumerate(choices)] * frames:
        logits = torch.from_numpy(random.normal(0, 1, count)).float()
        said.append(int(sampler(position, logits[None])))
        for choice in range(count):
            if (position, choice) in memory:
                logits[choice] *= 1 / 1.5 if logits[choice] > 0 else 1.5
        expected.append(int(logits.argmax()))
        memory.append((position, expected[-1]))
    return said, expected


@settings(max_examples=40)
@given(
    st.sampled_from([0, 1, 2, 3, 7, 20, MAX_WINDOW]),
    st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(0, 3)), max_size=12),
)
def test_choices_older_than_the_window_are_forgotten_and_the_prompts_count(window, spoken):
    said, expected = simulate(window, spoken, choices=(5, 4, 4), frames=12)
    assert said == expected


def test_the_longest_window_forgets_to_the_choice():
    params = SamplingParams(
        temperature=0.0, top_p=1.0, repetition_penalty=1.5, repetition_window=MAX_WINDOW
    )
    sampler = sampler_of((params, 0), choices=(3,))
    first, filler, probe = torch.tensor([[[9.0, 0, 0]], [[0, 9.0, 0]], [[1.2, -9.0, 1.0]]])
    for start in (0, 1):  # and once more, where the ring has been around
        assert int(sampler(0, first)) == 0
        assert drawn(sampler, filler, MAX_WINDOW - 1).unique().tolist() == [1]
        assert int(sampler(0, probe)) == 2, start  # the first choice is the last that counts
        assert int(sampler(0, probe)) == 0, start  # and is forgotten


def test_positions_do_not_share_their_memory():
    params = SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=10.0)
    sampler = Sampler(1, (3, 3), torch.device("cpu"))
    sampler.open(0, params, 0, Prompt((1,), ((1, 2),)))
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert int(sampler(0, logits)) == 2
    assert int(sampler(1, logits)) == 1


def test_the_largest_noise_never_brings_back_what_was_cut():
    params = SamplingParams(temperature=1.0, top_k=1, repetition_penalty=1.0)
    logits = torch.zeros(64, 4097)
    logits[:, 5] = 1.0
    sampler = sampler_of(*((params, s) for s in range(64)), choices=(4097,))
    assert (drawn(sampler, logits, 120) == 5).all()
