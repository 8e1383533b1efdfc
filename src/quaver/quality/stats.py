"""From many utterances to an estimate, an interval and a decision.

Utterances of one text resemble each other, so both sides are resampled text by text, and within a
text seed by seed: a paired, hierarchical bootstrap (Bisani and Ney, 2004; Miller, 2024). A claim of
no harm is a test of non-inferiority: it passes when the worst that the data allow is within the
margin, and fails when the best that they allow is not. Between, the data do not tell, and what is
said is how many texts would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from quaver.quality.metrics.metric import Score

Floats = NDArray[np.float64]
Scores = Mapping[str, Sequence[Score]]  # by text: one a seed

DRAWS = 4000
ONE_SIDED = 0.95  # confidence of each bound
MOST_TEXTS = 10**7  # more are not asked for
POWER = 0.8  # of the number of texts that is asked for
_Z = NormalDist().inv_cdf


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, the bounds that it stays within at `ONE_SIDED` each, and from how many texts."""

    value: float
    low: float
    high: float
    n: int

    @property
    def error(self) -> float:
        """Standard error, as the interval's width tells it."""
        return (self.high - self.low) / (2 * _Z(ONE_SIDED))

    @property
    def distance(self) -> Estimate:
        """The same of its distance from zero."""
        ends = sorted((abs(self.low), abs(self.high)))
        nearest = 0.0 if self.low <= 0 <= self.high else ends[0]
        return Estimate(abs(self.value), nearest, ends[1], self.n)


@dataclass(frozen=True, slots=True)
class Share(Estimate):
    """A share of things that did or did not happen, with exact bounds."""

    def needed(self, margin: float) -> int | None:
        """How many there must be for the upper bound to be `margin`, if the share stays."""
        n = self.n
        while n <= MOST_TEXTS and share(round(self.value * n), n).high > margin:
            n = math.ceil(n * 1.1)
        first = self.n
        while first < n:
            middle = (first + n) // 2
            enough = share(round(self.value * middle), middle).high <= margin
            first, n = (first, middle) if enough else (middle + 1, n)
        return n if n <= MOST_TEXTS else None


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    NOT_RESOLVED = "not resolved"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Decision:
    """`needed` texts would resolve what `n` did not; None where no number would."""

    verdict: Verdict
    needed: int | None = None


@dataclass(frozen=True)
class Samples:
    """Scores as matrices [texts, seeds]; missing ones have no weight."""

    values: Floats
    weights: Floats

    @classmethod
    def of(cls, scores: Scores, texts: Sequence[str]) -> Samples:
        width = max((len(scores[text]) for text in texts), default=0)
        values, weights = np.zeros((len(texts), width)), np.zeros((len(texts), width))
        for row, text in enumerate(texts):
            for column, score in enumerate(scores[text]):
                values[row, column], weights[row, column] = score.value, score.weight
        return cls(values, weights)

    @property
    def mean(self) -> float:
        return float((self.values * self.weights).sum() / self.weights.sum())

    def draw_means(self, rows: NDArray[np.int64], within: Floats) -> Floats:
        """Weighted means of draws [draws] that take the texts of rows [draws, texts], and of each
        the seeds that numbers in 0..1, `within` [draws, texts, seeds or more], point at."""
        width = self.values.shape[1]
        counts = (self.weights > 0).sum(axis=1)  # seeds that were measured come first
        seeds = (within[..., :width] * counts[rows][..., None]).astype(np.int64)
        there = np.arange(width) < counts[rows][..., None]
        taken = self.weights[rows[..., None], seeds] * there
        values = self.values[rows[..., None], seeds]
        means: Floats = (values * taken).sum(axis=(1, 2)) / taken.sum(axis=(1, 2))
        return means


def mean(scores: Scores, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """The weighted mean over all utterances. ValueError if there are none."""
    return _estimate(scores, None, lambda ours, _: ours, seed, draws)


def difference(reference: Scores, candidate: Scores, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """Candidate's mean less reference's, over the texts that both have. ValueError if none."""
    return _estimate(candidate, reference, lambda ours, theirs: ours - theirs, seed, draws)


def ratio(reference: Scores, candidate: Scores, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """Candidate's mean over reference's, over the texts that both have. ValueError if none."""
    return _estimate(candidate, reference, lambda ours, theirs: ours / theirs, seed, draws)


def _estimate(
    ours: Scores,
    theirs: Scores | None,
    statistic: Callable[[Floats, Floats], Floats],
    seed: int,
    draws: int,
) -> Estimate:
    sides = [ours] if theirs is None else [ours, theirs]
    texts = [text for text in ours if all(side.get(text) for side in sides)]
    if not texts:
        raise ValueError("no text was measured on every side")
    random = np.random.default_rng(seed)
    rows = random.integers(len(texts), size=(draws, len(texts)))
    samples = [Samples.of(side, texts) for side in sides]
    # the same for both sides: one text may be said in another voice with each seed
    within = random.random((draws, len(texts), max(side.values.shape[1] for side in samples)))
    drawn = [side.draw_means(rows, within) for side in samples]
    means = [np.array([side.mean]) for side in samples]
    value = float(statistic(means[0], means[-1])[0])
    outside = expanded(len(texts))
    low, high = np.quantile(statistic(drawn[0], drawn[-1]), [outside, 1 - outside])
    return Estimate(value, float(low), float(high), len(texts))


def expanded(n: int) -> float:
    """The share of draws of `n` texts to leave out at either end.

    Draws spread less than the world does, as a variance divided by n does, and the few texts say
    little of how much: with 12, intervals of plain percentiles are an eighth too narrow. These
    are as wide as Student's (Hesterberg, "What teachers should know about the bootstrap", 2015).
    """
    if n < 2:
        return 1 - ONE_SIDED
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * _student(n - 1))


def _student(freedom: int) -> float:
    """Student's quantile of `ONE_SIDED` (Abramowitz and Stegun, 26.7.5)."""
    z = _Z(ONE_SIDED)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def share(count: int, n: int) -> Share:
    """`count` of `n`, with the exact bounds of Clopper and Pearson (1934): of none of 299, the
    upper one is 1 %."""
    low = 0.0 if count == 0 else _solve(lambda p: _tail(count, n, p) - (1 - ONE_SIDED))
    high = 1.0 if count == n else _solve(lambda p: _tail(count + 1, n, p) - ONE_SIDED)
    return Share(count / n, low, high, n)


def decide(harm: Estimate, margin: float) -> Decision:
    """Whether `harm`, where more is worse, is within `margin`."""
    if harm.high <= margin:
        return Decision(Verdict.PASS)
    if harm.low > margin:
        return Decision(Verdict.FAIL)
    room = margin - harm.value
    if isinstance(harm, Share):
        return Decision(Verdict.NOT_RESOLVED, harm.needed(margin) if room > 0 else None)
    needed = (_Z(ONE_SIDED) + _Z(POWER)) * harm.error * math.sqrt(harm.n)
    if room <= 0 or needed > room * math.sqrt(MOST_TEXTS):
        return Decision(Verdict.NOT_RESOLVED)
    return Decision(Verdict.NOT_RESOLVED, max(harm.n + 1, math.ceil((needed / room) ** 2)))


def binomial_p(hits: int, n: int) -> float:
    """How often a fair coin gives `hits` heads or more of `n`: a listener who cannot tell."""
    return _tail(hits, n, 0.5)


def _tail(hits: int, n: int, p: float) -> float:
    """P(X >= hits) of a binomial, summed from the side with fewer terms."""
    if p <= 0 or p >= 1:
        return float(hits <= 0 or p >= 1)
    if hits <= n / 2:
        return 1 - math.fsum(_mass(k, n, p) for k in range(hits))
    return min(1.0, math.fsum(_mass(k, n, p) for k in range(hits, n + 1)))


def _mass(k: int, n: int, p: float) -> float:
    """P(X = k), by logarithms: of thousands, the powers underflow."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def _solve(rising: Callable[[float], float]) -> float:
    """The root in 0..1 of a function that rises."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
