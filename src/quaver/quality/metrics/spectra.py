"""Frames, spectra and time alignment: what the paired metrics share, in float64 numpy.

Before any of that comes `comparable`, the one gate that every pair goes through: a number about
two signals means something only if both are finite, audible, long enough and, for most metrics,
in step with each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import InputError
from quaver.quality.metrics.metric import NotMeasured, Speech

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

WINDOW_SECONDS, HOP_SECONDS = 0.064, 0.016  # 1024 and 256 samples at 16 kHz
MEL_BANDS = 80
FLOOR_DECIBELS = 80.0  # below the loudest cell; what is fainter is not heard beside it
LOWEST_RATE = 8000
SLACK = 0.01  # share by which two renderings of the same codes may differ in length
SILENT = 1e-4  # of full scale; the same line as the recogniser's
BAND_SECONDS = 0.5  # how far an alignment may stray from an even stretch

_ALONG, _DOWN = 1, 2  # steps of an alignment; 0 is diagonal


@dataclass(frozen=True, slots=True)
class Pair:
    """Two signals fit to be compared: float64 samples [n] and [m], and their common rate."""

    candidate: Floats
    reference: Floats
    rate: int


def comparable(
    candidate: Speech, reference: Speech | None, *, seconds: float = 0.1, in_step: bool = True
) -> Pair | NotMeasured:
    """Both as a `Pair`, or the reason why no number about them would mean anything.

    `seconds` is the least that each must last. With `in_step`, lengths may differ by less than 1 %
    and only the common part is kept; else they may be anything.
    """
    if reference is None:
        return NotMeasured("there is no reference to compare with")
    rate = candidate.sample_rate
    if rate != reference.sample_rate:
        return NotMeasured(f"the sample rates differ: {rate} and {reference.sample_rate}")
    if rate < LOWEST_RATE:
        return NotMeasured(f"the sample rate is {rate}; speech needs {LOWEST_RATE} Hz or more")
    ours, theirs = (np.asarray(s.samples, np.float64).reshape(-1) for s in (candidate, reference))
    if in_step:
        shorter, longer = sorted((len(ours), len(theirs)))
        if longer - shorter >= SLACK * longer > 0:
            return NotMeasured(
                f"the lengths differ: {len(ours)} and {len(theirs)} samples are no two renderings "
                "of the same codes"
            )
        ours, theirs = ours[:shorter], theirs[:shorter]
    for name, samples in (("candidate", ours), ("reference", theirs)):
        if fault := _fault(samples, rate, seconds):
            return NotMeasured(f"the {name} {fault}")
    return Pair(ours, theirs, rate)


def _fault(samples: Floats, rate: int, seconds: float) -> str:
    if len(samples) < seconds * rate:
        return f"lasts {len(samples) / rate:.3f} s; this needs at least {seconds:g} s"
    if not np.isfinite(samples).all():
        return "holds NaN or infinity"
    # A constant offset is no sound, however large.
    if not np.ptp(samples) > 2 * SILENT:
        return "is silent"
    return ""


def frame(samples: Floats, width: int, hop: int) -> Floats:
    """View [frames, width] of `samples` [n]; an incomplete last frame is left out.

    Raises InputError for fewer samples than one frame.
    """
    if len(samples) < width:
        raise InputError(f"{len(samples)} samples; one frame alone has {width}")
    return np.lib.stride_tricks.sliding_window_view(samples, width)[::hop]


def hann(width: int) -> Floats:
    """Periodic Hann window [width]."""
    window: Floats = np.hanning(width + 1)[:-1]
    return window


def power_spectra(
    samples: Floats, rate: int, window: float = WINDOW_SECONDS, hop: float = HOP_SECONDS
) -> Floats:
    """Power [frames, width // 2 + 1] under a Hann window of `window` seconds, each `hop` seconds.

    A sine of amplitude A reads A ** 2 / 4 in the bin of its frequency, whatever the window. Zeros
    complete the last frame.
    """
    width, step = round(window * rate), round(hop * rate)
    shape = hann(width)
    # Else a click at the very end would be in no frame.
    whole = np.pad(samples, (0, max(width - len(samples), -(len(samples) - width) % step)))
    spectra = np.fft.rfft(frame(whole, width, step) * (shape / shape.sum()), axis=1)
    power: Floats = spectra.real**2 + spectra.imag**2
    return power


def decibels(power: Floats, floor: float) -> Floats:
    """10 log10 of `power`, nothing below `floor` (a power too, above 0)."""
    level: Floats = 10.0 * np.log10(np.maximum(power, floor))
    return level


def floor_below_peak(power: Floats) -> float:
    """The power 80 dB under the loudest cell; above 0 even for digital silence."""
    return max(float(power.max()) * 10 ** (-FLOOR_DECIBELS / 10), 1e-30)


def mel_power(samples: Floats, rate: int, bands: int = MEL_BANDS) -> Floats:
    """Power [frames, bands] in mel bands from 0 Hz to half the rate."""
    width = round(WINDOW_SECONDS * rate)
    mel: Floats = power_spectra(samples, rate) @ mel_filters(width, rate, bands).T
    return mel


def log_mel(
    samples: Floats, rate: int, floor: float | None = None, bands: int = MEL_BANDS
) -> Floats:
    """Decibels [frames, bands] in mel bands; `floor` is 80 dB under the own peak if not given."""
    power = mel_power(samples, rate, bands)
    return decibels(power, floor_below_peak(power) if floor is None else floor)


def mel_filters(width: int, rate: int, bands: int = MEL_BANDS) -> Floats:
    """Triangles [bands, width // 2 + 1] of unit sum, evenly spaced on HTK's mel scale."""
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0.0, highest, bands + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(width, 1 / rate)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    scaled: Floats = filters / np.maximum(filters.sum(1, keepdims=True), 1e-12)
    return scaled


def align(
    a: Floats, b: Floats, radius: int = round(BAND_SECONDS / HOP_SECONDS)
) -> tuple[Indices, Indices]:
    """The cheapest path through frames `a` [n, bands] and `b` [m, bands]: indices [path] of both.

    Dynamic time warping after Sakoe and Chiba (1978): Euclidean distances, steps of one frame in
    either or both. The path runs from both starts to both ends and strays at most
    `radius` + |n - m| frames from an even stretch. That band is all it keeps: n rows of bytes.
    """
    n, m = len(a), len(b)
    reach = radius + abs(n - m)
    middle = np.arange(n) * ((m - 1) / max(1, n - 1))
    first = np.clip(np.floor(middle - reach), 0, m - 1).astype(np.intp)
    last = np.clip(np.ceil(middle + reach) + 1, 1, m).astype(np.intp)
    return _walk_back(_best_steps(a, b, first, last), first, n, m)


def _best_steps(a: Floats, b: Floats, first: Indices, last: Indices) -> NDArray[np.int8]:
    """The last step [n, band] of the cheapest way to each cell from `first` to `last`."""
    steps = np.zeros((len(a), int((last - first).max())), dtype=np.int8)
    above = np.full(len(b) + 1, np.inf)  # costs of the row before, moved right by one
    above[0] = 0.0
    for row, (start, stop) in enumerate(zip(first, last, strict=True)):
        cost = np.sqrt(((b[start:stop] - a[row]) ** 2).sum(1))
        diagonal, down = above[start:stop], above[start + 1 : stop + 1]
        # A way to cell j enters this row at some k <= j and then runs along it. With sums of
        # cost from the left, the best k for every j is one running minimum.
        run = np.cumsum(cost)
        entered = cost + np.minimum(diagonal, down) - run
        best = np.minimum.accumulate(entered)
        upright = np.where(diagonal <= down, 0, _DOWN)
        steps[row, : stop - start] = np.where(best < entered, _ALONG, upright)
        above = np.full(len(b) + 1, np.inf)
        above[start + 1 : stop + 1] = best + run
    return steps


def _walk_back(steps: NDArray[np.int8], first: Indices, n: int, m: int) -> tuple[Indices, Indices]:
    row, column = n - 1, m - 1
    path = [(row, column)]
    while row or column:
        step = steps[row, column - first[row]]
        row -= step != _ALONG
        column -= step != _DOWN
        path.append((row, column))
    both = np.array(path[::-1], dtype=np.intp)
    return both[:, 0], both[:, 1]
