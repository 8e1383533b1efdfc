"""Estimates, intervals and decisions, against closed forms, scipy and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from quaver.quality.metrics.metric import Score
from quaver.quality.stats import (
    Estimate,
    Verdict,
    binomial_p,
    decide,
    difference,
    expanded,
    mean,
    ratio,
    share,
)


def simulated(random, texts, seeds, *, shift=0.0, between=1.0, within=0.5, spread=None):
    """Scores of texts that differ `between` each other and, by seed, `within` themselves."""
    spread = random.normal(0, between, texts) if spread is None else spread
    return {
        f"text {i}": [Score(float(x)) for x in spread[i] + shift + random.normal(0, within, seeds)]
        for i in range(texts)
    }


def test_a_mean_is_weighted():
    scores = {"a": [Score(0.5, 2.0), Score(0.0, 8.0)], "b": [Score(1.0, 10.0)]}
    assert mean(scores).value == pytest.approx((1 + 0 + 10) / 20)


def test_only_texts_that_both_sides_have_count():
    reference = {"a": [Score(1.0)], "b": [Score(9.0)], "c": []}
    candidate = {"a": [Score(3.0)], "c": [Score(7.0)]}
    found = difference(reference, candidate)
    assert (found.value, found.n) == (2.0, 1)
    assert ratio(reference, candidate).value == 3.0
    with pytest.raises(ValueError, match="no text was measured"):
        difference({"a": [Score(1.0)]}, {"b": [Score(1.0)]})


def test_pairing_takes_out_what_texts_differ_by():
    random = np.random.default_rng(0)
    spread = random.normal(0, 10, 40)
    sides = [simulated(random, 40, 3, within=0.3, spread=spread) for _ in range(2)]
    assert difference(*sides).error < 0.3 < mean(sides[0]).error


def test_seeds_are_pairs_too():
    """One text in three voices, of which one is slow on both sides."""
    random, voices = np.random.default_rng(0), np.array([0.0, 5.0, 10.0])
    sides = [
        {
            f"text {i}": [Score(float(x)) for x in voices + random.normal(0, 0.3, 3)]
            for i in range(40)
        }
        for _ in range(2)
    ]
    assert difference(*sides).error < 0.08 < mean(sides[0]).error


@pytest.mark.parametrize("seeds", [1, 4])
def test_intervals_hold_as_often_as_they_say(seeds):
    """Of 200 studies the upper bound of the difference lies below the truth in about 10."""
    random, truth, below = np.random.default_rng(1), 0.2, 0
    for study in range(200):
        spread = random.normal(0, 1, 30)
        reference = simulated(random, 30, seeds, spread=spread)
        candidate = simulated(random, 30, seeds, shift=truth, spread=spread)
        below += difference(reference, candidate, seed=study, draws=400).high < truth
    assert 2 <= below <= 24


def test_intervals_of_few_texts_hold_as_often():
    """Six texts: plain percentiles miss in 60 of 600."""
    random = np.random.default_rng(2)
    missed = sum(
        mean(simulated(random, 6, 1), seed=study, draws=400).high < 0.0 for study in range(600)
    )
    assert 15 <= missed <= 48


@pytest.mark.parametrize("n", [4, 6, 12, 50, 1000])
def test_intervals_are_as_wide_as_students(n):
    wanted = norm.cdf(-math.sqrt(n / (n - 1)) * student.ppf(0.95, n - 1))
    assert expanded(n) == pytest.approx(wanted, rel=0.03)


def test_missing_seeds_do_not_count_as_zeros():
    scores = {"a": [Score(5.0)], "b": [Score(5.0), Score(5.0), Score(5.0)]}
    found = mean(scores)
    assert (found.value, found.low, found.high) == (5.0, 5.0, 5.0)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_exact_bounds(pair):
    count, n = pair
    found = share(count, n)
    wanted = binomtest(count, n).proportion_ci(confidence_level=0.9, method="exact")
    assert found.low == pytest.approx(wanted.low, abs=1e-9)
    assert found.high == pytest.approx(wanted.high, abs=1e-9)


def test_the_rule_of_three():
    assert share(0, 299).high < 0.01 < share(0, 298).high
    assert decide(share(0, 12), 0.01).needed == 299
    assert decide(share(1, 10), 0.01).needed is None
    half = decide(share(1, 200), 0.01).needed
    assert half is not None and share(round(half / 200), half).high <= 0.01


@given(value=st.floats(-1, 1), below=st.floats(0, 1), above=st.floats(0, 1), margin=st.floats(0, 1))
def test_a_decision_follows_from_its_bounds(value, below, above, margin):
    harm = Estimate(value, value - below, value + above, 20)
    found = decide(harm, margin)
    assert (found.verdict is Verdict.PASS) == (harm.high <= margin)
    assert (found.verdict is Verdict.FAIL) == (harm.high > margin and harm.low > margin)
    if found.needed is not None:
        assert found.verdict is Verdict.NOT_RESOLVED and found.needed > harm.n


def test_what_is_needed_is_what_resolves():
    """A difference of nothing, a spread of 1 and a margin of 0.1: (1.645 + 0.842)^2 / 0.1^2."""
    error = 1 / math.sqrt(100)
    harm = Estimate(0.0, -1.6449 * error, 1.6449 * error, 100)
    assert decide(harm, 0.1).needed == pytest.approx(618, abs=2)
    assert decide(Estimate(0.2, 0.05, 0.35, 9), 0.1).needed is None


@pytest.mark.parametrize(("hits", "n"), [(12, 16), (0, 5), (9, 10)])
def test_the_odds_of_guessing(hits, n):
    assert binomial_p(hits, n) == pytest.approx(
        binomtest(hits, n, 0.5, alternative="greater").pvalue
    )
