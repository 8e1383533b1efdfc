"""Pitch against pitch: melody and voicing of two renderings in step with each other.

The tracker is YIN (de Cheveigne and Kawahara 2002) with several candidates a frame and the cheapest
path through them, as in Praat (Boersma 1993). A frame alone is often an octave off, and one such
frame in a hundred would weigh more in a root mean square than all the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.spectra import Floats, Indices, Pair, comparable, frame

LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 500.0
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
CANDIDATES = 6
QUIET = 1e-4  # frames below this share of the loudest one's variance count as unvoiced
# Costs are in units of YIN's normalised difference: 0 is periodic, 1 is noise.
UNVOICED_COST = 0.4
OCTAVE_COST = 0.02  # per octave below the highest pitch: of equal dips the shortest lag is right
JUMP_COST = 0.35  # per octave between frames
SWITCH_COST = 0.14  # between voiced and unvoiced
LEAST_VOICED = 10  # frames, 0.1 s; fewer say nothing about a melody


class Pitch:
    """Root mean square difference of pitch in cents, over frames that are voiced in both."""

    name = "pitch"
    version = "1 (YIN with a path, 60 to 500 Hz)"
    unit = "cents"
    higher_is_better = False
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step, of one speaking voice"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference)
        if isinstance(pair, NotMeasured):
            return pair
        ours, theirs = _tracks(pair)
        both = (ours > 0) & (theirs > 0)
        if both.sum() < LEAST_VOICED:
            return NotMeasured(
                f"{both.sum()} frames are voiced in both, of {(theirs > 0).sum()} in the reference;"
                f" {LEAST_VOICED} are needed"
            )
        cents = 1200 * np.log2(ours[both] / theirs[both])
        return Score(float(np.sqrt((cents**2).mean())))


class PitchVoicing:
    """Share of all frames that are voiced in one rendering only (voicing decision error)."""

    name = "pitch-voicing"
    version = "1 (YIN with a path, 60 to 500 Hz)"
    unit = "share"
    higher_is_better = False
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step, of one speaking voice"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference)
        if isinstance(pair, NotMeasured):
            return pair
        ours, theirs = _tracks(pair)
        if (theirs > 0).sum() < LEAST_VOICED:
            return NotMeasured(f"the reference has fewer than {LEAST_VOICED} voiced frames")
        return Score(float(((ours > 0) != (theirs > 0)).mean()))


def _tracks(pair: Pair) -> tuple[Floats, Floats]:
    return pitch_track(pair.candidate, pair.rate), pitch_track(pair.reference, pair.rate)


def pitch_track(samples: Floats, rate: int) -> Floats:
    """Hertz [frames] of `samples` [n], a frame every 10 ms; 0 where there is no voice.

    Raises InputError for less than 42 ms.
    """
    shortest, longest = int(rate / HIGHEST_HERTZ), int(rate / LOWEST_HERTZ) + 1
    width = round(WINDOW_SECONDS * rate)
    frames = frame(samples, width + longest + 1, round(HOP_SECONDS * rate))
    lags, dips = _dips(_normalised_difference(frames, width), shortest)
    energy = frames.var(1)
    quiet = energy <= max(energy.max() * QUIET, 1e-12)
    costs = dips + OCTAVE_COST * np.log2(lags / shortest)
    costs[quiet] = np.inf
    chosen = _cheapest_path(costs, np.log2(lags))
    every = np.arange(len(frames))
    voiced = chosen < CANDIDATES
    hertz: Floats = np.where(voiced, rate / lags[every, np.where(voiced, chosen, 0)], 0.0)
    return hertz


def _normalised_difference(frames: Floats, width: int) -> Floats:
    """YIN's d' [frames, lags from 0]: squared difference with itself over its mean so far."""
    lags = frames.shape[1] - width
    size = 1 << (frames.shape[1] - 1).bit_length()
    # An offset would swamp the small differences that matter.
    frames = frames - frames.mean(1, keepdims=True)
    head = np.fft.rfft(frames[:, :width], size, axis=1)
    product = np.fft.irfft(head.conj() * np.fft.rfft(frames, size, axis=1), size, axis=1)[:, :lags]
    squares = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    energy = squares[:, width : width + lags] - squares[:, :lags]
    difference = np.maximum(energy[:, :1] + energy - 2 * product, 0.0)
    total = np.cumsum(difference[:, 1:], axis=1)
    normalised = np.ones_like(difference)
    np.divide(
        difference[:, 1:] * np.arange(1, lags), total, out=normalised[:, 1:], where=total > 1e-12
    )
    return normalised


def _dips(difference: Floats, shortest: int) -> tuple[Floats, Floats]:
    """Lags in samples and depths, both [frames, CANDIDATES]; a missing dip is infinitely dear."""
    before, here, after = (difference[:, shortest + k : k - 2 or None] for k in range(3))
    slope, bend = before - after, before - 2 * here + after
    dip = (here < before) & (here <= after)
    # The parabola through three points: where its vertex is, and how deep. Without the depth a
    # high voice whose period is no whole number of samples would read an octave too low.
    moved = np.divide(slope, 2 * bend, out=np.zeros_like(here), where=dip)
    depth = np.where(dip, np.maximum(here - slope * moved / 4, 0.0), np.inf)
    # Deeper dips of longer lags are often multiples; the octave's cost decides who is kept.
    rank = depth + OCTAVE_COST * np.log2(1 + np.arange(depth.shape[1]) / shortest)
    kept = np.argpartition(rank, CANDIDATES, axis=1)[:, :CANDIDATES]
    lags = kept + shortest + 1 + np.take_along_axis(moved, kept, axis=1)
    return lags, np.take_along_axis(depth, kept, axis=1)


def _cheapest_path(costs: Floats, octaves: Floats) -> Indices:
    """The candidate [frames] of the cheapest path, CANDIDATES for unvoiced (Viterbi).

    `costs` and `octaves` (log2 of the lag): [frames, CANDIDATES].
    """
    count, width = costs.shape
    total = np.append(costs[0], UNVOICED_COST)
    origin: NDArray[np.intp] = np.zeros((count, width + 1), dtype=np.intp)
    change = np.zeros((width + 1, width + 1))
    change[:width, width] = change[width, :width] = SWITCH_COST
    for k in range(1, count):
        change[:width, :width] = JUMP_COST * np.abs(octaves[k - 1][:, None] - octaves[k])
        ways = total[:, None] + change
        origin[k] = ways.argmin(0)
        total = ways.min(0) + np.append(costs[k], UNVOICED_COST)
    chosen = np.empty(count, dtype=np.intp)
    chosen[-1] = total.argmin()
    for k in range(count - 1, 0, -1):
        chosen[k - 1] = origin[k, chosen[k]]
    return chosen
