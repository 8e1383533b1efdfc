"""Is there noise where nobody speaks? A signal-to-noise ratio that needs no reference.

Coarse arithmetic in a codec puts a hiss under everything. Words drown it, pauses do not, and word
error rate or speaker similarity hear nothing of it. The level of the loud frames over that of the
quiet ones tells, between 1 and 7 kHz: above hum and the low tail of vowels, below the band edge.
"""

from __future__ import annotations

import numpy as np

from quaver.quality.metrics.hearing import LEAST_SECONDS, trimmed
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.pace import Floats, why_unusable

FRAME_SECONDS, HOP_SECONDS = 0.020, 0.010
BAND_HERTZ = (1000.0, 7000.0)
SPEECH_PERCENTILE, PAUSE_PERCENTILE = 95, 10
# Nobody hears a floor 60 dB below speech. Without the clamp digital silence would stand infinitely
# far above a hiss that is just as silent to the ear.
DEEPEST_DB = 60.0


class PauseNoise:
    """Level of speech over the noise in its pauses: P95 - P10 of frames in 1-7 kHz, 60 at most."""

    name = "pause-noise"
    version = "1"
    unit = "dB"
    higher_is_better = True
    kind = Kind.SPEECH
    valid_for = "speech of 14 kHz or more with natural pauses; compare one text, not two texts"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        if candidate.sample_rate < 2 * BAND_HERTZ[1]:
            needed = f"{2 * BAND_HERTZ[1]:.0f} Hz or more"
            return NotMeasured(
                f"the sample rate is {candidate.sample_rate}; the band needs {needed}"
            )
        if unusable := why_unusable(candidate, LEAST_SECONDS):
            return unusable
        # The margin around speech is enough to hear its floor, and always the same share, so that
        # appended silence buys nothing.
        level = band_levels(trimmed(candidate).astype(np.float64), candidate.sample_rate)
        speech, pause = np.percentile(level, [SPEECH_PERCENTILE, PAUSE_PERCENTILE])
        return Score(float(min(speech - pause, DEEPEST_DB)))


def band_levels(sound: Floats, sample_rate: int) -> Floats:
    """Power in dB between 1 and 7 kHz of Hann frames of 20 ms of `sound` [n], each 10 ms."""
    width, hop = round(FRAME_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    frames = np.lib.stride_tricks.sliding_window_view(sound, width)[::hop]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(width), axis=1)) ** 2
    frequency = np.fft.rfftfreq(width, 1 / sample_rate)
    inside = (frequency >= BAND_HERTZ[0]) & (frequency <= BAND_HERTZ[1])
    levels: Floats = 10 * np.log10(np.maximum(spectrum[:, inside].sum(1), 1e-20))
    return levels
