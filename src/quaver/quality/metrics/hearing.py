"""Sound as judges take it: 16 kHz, and where it helps without the silence around speech."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import InputError, UnsupportedError
from quaver.quality.metrics.metric import NotMeasured, Speech
from quaver.quality.metrics.pace import spoken_span, why_unusable
from quaver.quality.metrics.packages import QUALITY

Sound = NDArray[np.float32]

HEARING_RATE = 16_000
LOWEST_RATE = 8000  # Hz; what is sampled slower has lost half of the consonants
MARGIN_SECONDS = 0.2  # of silence kept on either side of speech
LEAST_SECONDS = 0.5  # of speech, for judges that average over it
_AUDIBLE = 1e-4  # of full scale; sound that never rises above it has no words


def words_at_16_khz(samples: Sound, sample_rate: int) -> Sound | None:
    """Samples [n] for a recogniser; None for silence.

    Raises InputError for a sample rate below 8 kHz or samples that are not finite.
    """
    if sample_rate < LOWEST_RATE:
        raise InputError(f"the sample rate is {sample_rate}; speech needs {LOWEST_RATE} Hz or more")
    sound = np.asarray(samples, dtype=np.float32).reshape(-1)
    if not np.isfinite(sound).all():
        raise InputError("the samples hold NaN or infinity; speech to be judged must be finite")
    if not (np.abs(sound) > _AUDIBLE).any():
        return None
    return resample(sound, sample_rate)


def voice_at_16_khz(speech: Speech) -> Sound | NotMeasured:
    """Trimmed samples [n] for a network that judges a voice, or why it should not."""
    if speech.sample_rate < LOWEST_RATE:
        return NotMeasured(
            f"the sample rate is {speech.sample_rate}; speech needs {LOWEST_RATE} Hz or more"
        )
    if unusable := why_unusable(speech, LEAST_SECONDS):
        return unusable
    try:
        return resample(trimmed(speech), speech.sample_rate)
    except UnsupportedError as error:
        return NotMeasured(str(error))


def trimmed(speech: Speech) -> Sound:
    """Samples [n] without the silence around speech; empty if all is silence. Must be finite."""
    first, last = spoken_span(speech)
    margin = int(MARGIN_SECONDS * speech.sample_rate) if last else 0
    sound = np.asarray(speech.samples, dtype=np.float32).reshape(-1)
    return sound[max(0, first - margin) : last + margin]


def resample(sound: Sound, sample_rate: int) -> Sound:
    """`sound` [n] at 16 kHz, [n * 16000 / sample_rate]. Raises UnsupportedError without scipy."""
    if sample_rate == HEARING_RATE:
        return sound
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise UnsupportedError(
            f"hearing speech at {sample_rate} Hz needs scipy to resample; "
            f"install it with pip install {QUALITY}"
        ) from error
    divisor = int(np.gcd(sample_rate, HEARING_RATE))
    up, down = HEARING_RATE // divisor, sample_rate // divisor
    return np.asarray(resample_poly(sound, up, down), dtype=np.float32)
