"""Spectral correlation: does the candidate's picture of loudness over time and pitch look the same?

The word alone defines nothing: at 30 dB of white noise its values run from 0.81 to 1.00, by the
choice of floor. This one floors both log-mel pictures 80 dB under the reference's peak.
"""

from __future__ import annotations

import numpy as np

from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.spectra import (
    MEL_BANDS,
    Floats,
    align,
    comparable,
    decibels,
    floor_below_peak,
    mel_power,
)

FLAT = 1e-6  # dB from the faintest cell to the loudest, below which only rounding correlates


class SpectralCorrelation:
    """Pearson correlation of 80-band log-mel spectrograms over time-warped frames, -1 to 1.

    Windows of 64 ms every 16 ms at the native rate. Warping hides faults of timing, so report a
    ratio of durations beside it. A change of level is no change of correlation: the candidate is
    first brought to the reference's mean power, or the floor and the warping would see it.
    """

    name = "spectral-correlation"
    version = f"1 ({MEL_BANDS} mel bands, floor -80 dB re the reference's peak, aligned)"
    unit = ""
    higher_is_better = True
    kind = Kind.PAIRED
    valid_for = "the same words from the same codes or noise; lengths may differ"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference, in_step=False)
        if isinstance(pair, NotMeasured):
            return pair
        ours, theirs = (mel_power(x, pair.rate) for x in (pair.candidate, pair.reference))
        floor = floor_below_peak(theirs)
        theirs_log = decibels(theirs, floor)
        ours_log = decibels(ours * (theirs.mean() / max(ours.mean(), 1e-30)), floor)
        here, there = align(ours_log, theirs_log)
        return _correlation(ours_log[here], theirs_log[there])


def _correlation(a: Floats, b: Floats) -> Score | NotMeasured:
    """Pearson over all cells of two arrays of one shape."""
    if min(np.ptp(a), np.ptp(b)) < FLAT:
        return NotMeasured("one spectrogram is the same everywhere; nothing correlates with that")
    a, b = a - a.mean(), b - b.mean()
    return Score(float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())))
