"""Distances between spectra, for two renderings of the same codes in step with each other."""

from __future__ import annotations

import numpy as np

from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.spectra import (
    Floats,
    comparable,
    decibels,
    floor_below_peak,
    frame,
    hann,
    power_spectra,
)

# FFT size, hop and window in samples: Yamamoto, Song and Kim, "Parallel WaveGAN" (2020), table 1.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
LEAST_POWER = 1e-8  # auraloss' clamp on |X|^2, samples in -1..1


class LogSpectralDistance:
    """Mean over frames of the root mean square over bins of the difference of levels, in dB.

    After Gray and Markel, "Distance measures for speech processing" (1976), with windows of 64 ms
    every 16 ms. Both sides are floored 80 dB under the reference's loudest cell. That floor decides
    the scale: without one, inaudible noise in a digital pause outweighs all speech.
    """

    name = "log-spectral-distance"
    version = "1 (floor -80 dB re the reference's peak)"
    unit = "dB"
    higher_is_better = False
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step; compare no values of other floors"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference)
        if isinstance(pair, NotMeasured):
            return pair
        ours, theirs = (power_spectra(x, pair.rate) for x in (pair.candidate, pair.reference))
        floor = floor_below_peak(theirs)
        gap = decibels(ours, floor) - decibels(theirs, floor)
        return Score(float(np.sqrt((gap**2).mean(1)).mean()))


class MultiResolutionStft:
    """Spectral convergence plus log magnitude difference, averaged over three resolutions.

    Per resolution, with magnitudes C and R of candidate and reference: |C - R| / |R| in Frobenius
    norms, plus the mean of |ln C - ln R| over all cells (Yamamoto, Song and Kim 2020). Details as
    in auraloss 0.4: frames centred on mirrored ends, periodic Hann, unscaled FFT, and the floor
    on power is 1e-8 of full scale, so faint noise in digital pauses weighs much here.
    """

    name = "mr-stft"
    version = "1 (as auraloss 0.4)"
    unit = ""
    higher_is_better = False
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step; made for 24 kHz, a training loss"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference, seconds=0.2)
        if isinstance(pair, NotMeasured):
            return pair
        parts = []
        for size, hop, width in RESOLUTIONS:
            ours, theirs = (
                _magnitudes(x, size, hop, width) for x in (pair.candidate, pair.reference)
            )
            convergence = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
            parts.append(convergence + np.abs(np.log(ours / theirs)).mean())
        return Score(float(np.mean(parts)))


def _magnitudes(samples: Floats, size: int, hop: int, width: int) -> Floats:
    """[frames, size // 2 + 1] of `samples` [n], n > size / 2; frame k is centred on k * hop."""
    # Only the window's part of a frame is not zero, and where in a frame it lies is phase alone.
    padded = np.pad(samples, size // 2, mode="reflect")
    before = (size - width) // 2
    frames = frame(padded, size, hop)[:, before : before + width]
    spectra = np.fft.rfft(frames * hann(width), size, axis=1)
    return np.sqrt(np.maximum(spectra.real**2 + spectra.imag**2, LEAST_POWER))
