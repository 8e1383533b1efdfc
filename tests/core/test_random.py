"""Random numbers by address: never the ends, spread as they should be, repeatable for ever."""

import torch
from scipy.stats import kstest

from quaver.core.random import normal, seed_key, stream_key, uniform

LARGEST, SMALLEST = 857_579_651, 0  # keys whose 32 bits at position 0 are all ones, all zeros


def key(seed: int, stream: int = 0) -> torch.Tensor:
    return stream_key(seed_key(torch.tensor([seed])), stream)


def test_numbers_never_reach_the_ends():
    ends = uniform(torch.tensor([SMALLEST, LARGEST]), torch.tensor([0, 0]))
    assert ends[0] == 2.0**-24
    assert ends[1] == 1 - 2.0**-24
    assert normal(torch.tensor([SMALLEST, LARGEST]), torch.tensor([0, 0])).isfinite().all()


def test_numbers_have_their_distributions():
    position = torch.arange(50_000)
    for seed in (0, 1, 2**40):
        assert kstest(uniform(key(seed), position).numpy(), "uniform").pvalue > 1e-3
        assert kstest(normal(key(seed), position).numpy(), "norm").pvalue > 1e-3


def test_streams_and_neighbours_are_not_correlated():
    position = torch.arange(50_000)
    rows = torch.stack([normal(key(s, t), position) for s, t in ((0, 0), (0, 1), (1, 0), (1, 1))])
    shifted = torch.cat((rows, rows[:1].roll(1), rows[:1].roll(2)))
    between = torch.corrcoef(shifted) - torch.eye(len(shifted))
    assert between.abs().max() < 0.02  # four and a half standard errors


def test_all_bits_of_a_seed_count():
    keys = torch.cat([key(seed) for seed in (0, 1, 2**31, 2**32, 2**62, 2**63 - 1)])
    assert len(keys.unique()) == len(keys)


def test_numbers_stay_what_they_are():
    found = uniform(key(1234, 5), torch.tensor([0, 1, 2**20]))
    # by the same formulas in Python's integers
    assert found.tolist() == [0.43465059995651245, 0.5223802924156189, 0.3352356553077698]


def test_a_number_depends_on_its_address_alone():
    whole = normal(key(3)[:, None], torch.arange(100)[None])
    assert torch.equal(whole[:, 40:60], normal(key(3)[:, None], torch.arange(40, 60)[None]))
