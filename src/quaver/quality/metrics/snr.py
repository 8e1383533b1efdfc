"""Signal-to-noise ratio of one rendering against another of the same codes, in step with it.

The reference is the signal and whatever differs from it is the noise. That holds only where both
come from the same codes: a tempo 3 % off reads as -3 dB and sounds no worse.
"""

from __future__ import annotations

import numpy as np

from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.spectra import Floats, comparable

CEILING = 120.0  # dB, also the floor below zero; identical signals would read infinity


class Snr:
    """10 log10(sum r^2 / sum (c - r)^2) in dB: level, offset and sign must be right too."""

    name = "snr"
    version = "1"
    unit = "dB"
    higher_is_better = True
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step; 120 dB stands for identical"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference)
        if isinstance(pair, NotMeasured):
            return pair
        return Score(_ratio(pair.reference, pair.candidate - pair.reference))


class SiSdr:
    """Scale-invariant signal-to-distortion ratio in dB: level, offset and sign do not count.

    Le Roux et al., "SDR - half-baked or well done?" (2019): the signal is the candidate's
    projection on the reference, the noise is the rest of it. Means are taken off first.
    """

    name = "si-sdr"
    version = "1"
    unit = "dB"
    higher_is_better = True
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step, that may differ in loudness"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference)
        if isinstance(pair, NotMeasured):
            return pair
        ours, theirs = (x - x.mean() for x in (pair.candidate, pair.reference))
        target = (ours @ theirs) / (theirs @ theirs) * theirs
        return Score(_ratio(target, target - ours))


def _ratio(signal: Floats, noise: Floats) -> float:
    powers = np.array([signal @ signal, noise @ noise])
    # Either sum may be zero; a share of the other keeps the ratio within the ceiling.
    wanted, unwanted = np.maximum(powers, powers.max() * 10 ** (-CEILING / 10))
    return float(10 * np.log10(wanted / unwanted))
