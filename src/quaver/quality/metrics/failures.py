"""What is plainly broken? Faults that no average shows, because they are rare and total.

A cheap format may sound well a hundred times and then ring at full scale, fall silent, say a
stretch twice or talk without end. Each fault has a name and a threshold far from healthy speech:
an alarm is to be believed, and small damage is left to the other metrics.
"""

from __future__ import annotations

import math

import numpy as np

from quaver.core.types import FinishReason
from quaver.quality.metrics.hearing import HEARING_RATE, resample
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.pace import (
    QUIET_DB,
    SILENT_DBFS,
    Floats,
    frame_levels,
    frame_width,
    spoken_span,
)
from quaver.quality.metrics.packages import QUALITY, installed
from quaver.quality.words import normalise

FULL_SCALE = 0.999  # 16-bit files end at 32767 / 32768, and rounding takes a little more
# On one side of zero. Half a wave of the lowest voice (60 Hz) lasts 8.3 ms, so even speech that
# is clipped to a square wave leaves the rail sooner.
RAIL_SECONDS = 0.010
# Of all samples, on both rails: a scale that is too large everywhere. Speech levelled to its peak
# has a handful there, and one that was loud and limited about one in a thousand.
RAIL_SHARE = 0.05
# Mean over samples, -30 dBFS: a thump at either end. Healthy voices stay below 0.007.
OFFSET = 0.03
# The same span after which the engine's guard gives a silent stream up; no sentence pauses so long.
PAUSE_SECONDS = 3.0
# Letters and spaces of the normalised text. People and synthesisers say 13 to 20 a second, the
# fastest of 320 healthy utterances 27; half of a sentence left out looks like 30 to 45.
CHARACTERS_PER_SECOND = 32.0
# The last sound, of that many seconds, and how far below the level of loud speech. Sentences die
# away: 360 healthy ones end 37 dB down and more; 77 of 90 that were cut anywhere do not reach 20.
END_SECONDS = 0.02
END_DB = 20.0
LOUD_SHARE = 0.9  # of audible frames are quieter than loud speech
# A stretch of sound that is followed by its own copy. Said twice, even by a synthesiser, no word
# gives the same wave again for so long: the most in healthy speech is 0.18 s, in held vowels. Five
# blocks, less what rounding takes: a copy of 0.4 s or more always has them if it is loud.
STUTTER_SECONDS = 0.29
STUTTER_LIKENESS = 0.95  # correlation of block and copy; noise 13 dB below them still passes
# Seconds from a block to its copy. A held vowel looks like itself some periods later, rarely for
# as long as the shortest; a loop of less shows up at a multiple. Beyond the longest: other words.
STUTTER_DISTANCES = (0.20, 2.0)
BLOCK_SECONDS = 0.06
_BLOCK_QUIET_DB = 30.0  # below the loudest block; hum and digital silence repeat in any pause
_FINISHES = {
    FinishReason.LENGTH: "runaway",
    FinishReason.REPETITION: "loop",
    FinishReason.CANCELLED: "cut",
    FinishReason.SILENCE: "silence",
}


class Failures:
    """1 if anything is plainly broken, else 0; the mean is the share of failed utterances."""

    name = "failures"
    version = "2"
    unit = "share"
    higher_is_better = False
    kind = Kind.SPEECH
    valid_for = "speech; an early stop is seen in languages written with the letters a to z only"

    def __init__(self) -> None:
        installed("scipy", "looking for failures", QUALITY)

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        if failures(candidate):
            return Score(1.0)
        if not normalise(candidate.text):
            return NotMeasured("no words are known to be said; an early stop would go unseen")
        return Score(0.0)


def failures(speech: Speech) -> tuple[str, ...]:
    """The names of what is plainly wrong with `speech`, each once; empty if nothing is."""
    ended = [_FINISHES[FinishReason(r)] for r in speech.finish_reasons if r != FinishReason.STOP]
    sound = np.asarray(speech.samples, dtype=np.float64).reshape(-1)
    if not np.isfinite(sound).all():
        return tuple(dict.fromkeys(["nan", *ended]))
    found = ended
    if _is_on_rails(sound, speech.sample_rate):
        found = [*found, "rails"]
    if len(sound) and abs(sound.mean()) > OFFSET:
        found = [*found, "dc"]
    if _is_silent(speech):
        found = [*found, "silence"]
    elif _stopped_early(speech) or _is_cut_off(speech):
        found = [*found, "early stop"]
    if repeated_seconds(speech) >= STUTTER_SECONDS:
        found = [*found, "stutter"]
    return tuple(dict.fromkeys(found))


def _is_on_rails(sound: Floats, sample_rate: int) -> bool:
    """Whether samples [n] stay at full scale or beyond: for a while on one side, or often."""
    least = max(2, round(RAIL_SECONDS * sample_rate))
    high, low = sound >= FULL_SCALE, sound <= -FULL_SCALE
    often = len(sound) > 0 and bool((high | low).mean() > RAIL_SHARE)
    return often or longest_run(high) >= least or longest_run(low) >= least


def longest_run(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """The most neighbours of `mask` [n] that are all true."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _is_silent(speech: Speech) -> bool:
    """Whether nothing can be heard, or nothing for longer than any pause."""
    level = frame_levels(speech.samples, speech.sample_rate)
    loudest = level.max(initial=-np.inf)
    if loudest < SILENT_DBFS:
        return True
    frames = PAUSE_SECONDS * speech.sample_rate / frame_width(speech.sample_rate)
    return longest_run(level < max(loudest - QUIET_DB, SILENT_DBFS)) > frames


def _stopped_early(speech: Speech) -> bool:
    """Whether the text would need more time, however fast it was said."""
    first, last = spoken_span(speech)
    spoken = (last - first) / speech.sample_rate
    return spoken < len(normalise(speech.text)) / CHARACTERS_PER_SECOND


def _is_cut_off(speech: Speech) -> bool:
    """Whether the sound ends in the middle of speech."""
    count = round(END_SECONDS * speech.sample_rate)
    level = frame_levels(speech.samples, speech.sample_rate)
    loud = np.quantile(level[level >= SILENT_DBFS], LOUD_SHARE)
    end = frame_levels(speech.samples[-count:], speech.sample_rate).max()
    return bool(end > loud - END_DB)


def repeated_seconds(speech: Speech) -> float:
    """How much sound comes again a little later, always at one and the same distance.

    Blocks of 60 ms look for their copy in the next two seconds by normalised cross-correlation.
    Neighbouring blocks that find theirs at the same distance (to a sample of 16 kHz) add up; quiet
    blocks between them neither add nor part. Samples must be finite.
    """
    samples = np.asarray(speech.samples, dtype=np.float32).reshape(-1)
    if speech.sample_rate > HEARING_RATE:
        samples = resample(samples, speech.sample_rate)
    sound = samples.astype(np.float64)
    rate = min(speech.sample_rate, HEARING_RATE)
    width = math.ceil(BLOCK_SECONDS * rate)
    nearest, farthest = (round(seconds * rate) for seconds in STUTTER_DISTANCES)
    starts = np.arange(0, len(sound) - width - nearest, width)
    energy = np.array([(sound[start : start + width] ** 2).sum() for start in starts])
    best = run = 0
    distance = -2
    for start in starts[energy > energy.max(initial=0) * 10 ** (-_BLOCK_QUIET_DB / 10)]:
        found = _copy_of(sound[start : start + width], sound[start + nearest :][: farthest + width])
        if found is None:
            run, distance = 0, -2
            continue
        run, distance = run + 1 if abs(found - distance) <= 1 else 1, found
        best = max(best, run)
    return best * width / rate


def _copy_of(block: Floats, later: Floats) -> int | None:
    """Where in `later` [m] the wave of `block` [n] comes again; None if nowhere."""
    from scipy.signal import correlate

    if len(later) < len(block):
        return None
    product = correlate(later, block, mode="valid", method="fft")
    summed = np.concatenate([[0.0], np.cumsum(later**2)])
    energy = summed[len(block) :] - summed[: -len(block)]
    floor = 0.1 * (block**2).sum()  # a copy is about as loud; this also keeps clear of 0 / 0
    likeness = product / np.sqrt(np.maximum(energy, floor) * (block**2).sum())
    where = int(likeness.argmax())
    return where if likeness[where] >= STUTTER_LIKENESS else None
