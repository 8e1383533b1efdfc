"""How long does the voice speak? And where in the samples, which other metrics ask too.

Silence around speech is nobody's fault and costs nothing to trim, so it is left out. A model that
hurries, drags, stops early or rambles shows in the ratio of two durations of one text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech

Floats = NDArray[np.float64]

FRAME_SECONDS = 0.010
SILENT_DBFS = -50.0  # a frame below it is silence; the hiss of a neural codec lies about here
# Below the loudest frame. Relative, so that gain does not move the ends of speech. The quietest
# sounds that end a sentence lie 25 to 30 dB down; a codec's hiss in pauses, 40 and more.
QUIET_DB = 35.0


class Duration:
    """Seconds from the first audible frame to the last. Meant as a ratio of two speeches."""

    name = "duration"
    version = "1"
    unit = "s"
    higher_is_better = False  # neither way is better: what a gate looks at is the ratio to 1
    kind = Kind.SPEECH
    valid_for = "speech with pauses 35 dB or more below its loudest sound; compare one text only"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        if unusable := why_unusable(candidate):
            return unusable
        first, last = spoken_span(candidate)
        return Score((last - first) / candidate.sample_rate)


def why_unusable(speech: Speech, least_seconds: float = 0.0) -> NotMeasured | None:
    """The reason if `speech` holds no sound that is finite, audible and of `least_seconds`."""
    if not np.isfinite(speech.samples).all():
        return NotMeasured("the samples hold NaN or infinity")
    first, last = spoken_span(speech)
    if first == last:
        return NotMeasured(f"nothing is audible: no 10 ms reach {SILENT_DBFS:.0f} dBFS")
    if (seconds := (last - first) / speech.sample_rate) < least_seconds:
        return NotMeasured(f"{seconds:.2f} s of speech are too short; {least_seconds} s or more")
    return None


def spoken_span(speech: Speech) -> tuple[int, int]:
    """(first, last + 1) audible sample, to a frame; (0, 0) if none is. Samples must be finite."""
    level = frame_levels(speech.samples, speech.sample_rate)
    if not len(level):
        return 0, 0
    loud = np.flatnonzero(level >= max(level.max() - QUIET_DB, SILENT_DBFS))
    if not len(loud):
        return 0, 0
    width = frame_width(speech.sample_rate)
    return int(loud[0]) * width, min(int(loud[-1] + 1) * width, speech.samples.size)


def frame_levels(samples: NDArray[np.float32], sample_rate: int) -> Floats:
    """RMS in dB re full scale of each 10 ms of samples [n], [frames]; silence is -200 dB.

    A constant offset is inaudible and left out. It is the median, which a burst does not move. A
    rest shorter than a frame is padded with zeros.
    """
    width = frame_width(sample_rate)
    sound = np.asarray(samples, dtype=np.float64).reshape(-1)
    if len(sound):
        sound = sound - np.median(sound)
    frames = np.pad(sound, (0, -len(sound) % width)).reshape(-1, width)
    levels: Floats = 10 * np.log10(np.maximum((frames**2).mean(1), 1e-20))
    return levels


def frame_width(sample_rate: int) -> int:
    """Samples in a frame of 10 ms."""
    return max(1, round(FRAME_SECONDS * sample_rate))
