"""Word error rate by a small recogniser that ships its model in its wheel.

PocketSphinx is no match for a large recogniser, but it needs no download, runs on any CPU and
gives the same answer every time. That is what a paired comparison asks for: both sides are heard
by the same judge, and its own mistakes cancel in the difference. Judge absolute rates with care.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import InputError, UnsupportedError
from quaver.quality.words import normalise

__all__ = ["WordErrorRate", "normalise", "word_errors"]

RECOGNISER_RATE = 16_000
_PADDING_SECONDS = 0.3  # the decoder needs silence to find the first and the last word
_AUDIBLE = 1e-4  # of full scale; sound that never rises above it has no words
_DITHER = 3e-4  # of full scale, RMS; digital silence would give a log of zero
_INSTALL = "install it with pip install 'quaver[quality]'"


class WordErrorRate:
    """Hears speech and counts the words that differ from what should have been said.

    Loading takes about a second; one judge serves any number of utterances, one at a time. What it
    hears does not depend on what it heard before.
    """

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise UnsupportedError(f"word error rate needs pocketsphinx; {_INSTALL}") from error
        # Mean normalisation over each whole utterance: the default adapts from one to the next.
        self._decoder: Any = Decoder(samprate=RECOGNISER_RATE, cmn="batch", loglevel="FATAL")

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> str:
        """The words heard in `samples` [n] in -1..1, lower case; empty if there are none.

        Raises InputError for a sample rate below 8 kHz or samples that are not finite.
        """
        checked = _checked(samples, sample_rate)
        if not (np.abs(checked) > _AUDIBLE).any():
            return ""
        sound = _for_recogniser(checked, sample_rate)
        self._decoder.start_utt()
        self._decoder.process_raw(sound.tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return "" if heard is None else str(heard.hypstr)

    def errors(
        self, reference: str, samples: NDArray[np.float32], sample_rate: int
    ) -> tuple[int, int]:
        """(errors, words) of `samples` [n] against the text `reference`.

        The rate of a corpus is the sum of errors over the sum of words, not a mean of rates.
        """
        return word_errors(reference, self.transcribe(samples, sample_rate))


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(substituted, deleted and inserted words, words of the reference), both normalised.

    Raises InputError if the reference has no words.
    """
    try:
        from jiwer import process_words
    except ImportError as error:
        raise UnsupportedError(f"word error rate needs jiwer; {_INSTALL}") from error
    expected, heard = normalise(reference), normalise(hypothesis)
    if not expected:
        raise InputError(f"the reference {reference!r} has no words; give one with at least one")
    counts = process_words(expected, heard)
    return counts.substitutions + counts.deletions + counts.insertions, len(expected.split())


def _checked(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    if sample_rate < 8000:
        raise InputError(f"the sample rate is {sample_rate}; speech needs 8000 Hz or more")
    sound = np.asarray(samples, dtype=np.float32).reshape(-1)
    if not np.isfinite(sound).all():
        raise InputError("the samples hold NaN or infinity; speech to be judged must be finite")
    return sound


def _for_recogniser(sound: NDArray[np.float32], sample_rate: int) -> NDArray[np.int16]:
    """Mono int16 samples at 16 kHz with faintly noisy silence on either side."""
    if sample_rate != RECOGNISER_RATE:
        sound = _resample(sound, sample_rate)
    count = int(_PADDING_SECONDS * RECOGNISER_RATE)
    noise = np.random.default_rng(0).normal(0.0, _DITHER, len(sound) + 2 * count)
    padded = noise + np.pad(sound, count)
    return np.rint(np.clip(padded, -1.0, 1.0) * 32767.0).astype(np.int16)


def _resample(sound: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise UnsupportedError(
            f"hearing speech at {sample_rate} Hz needs scipy to resample; {_INSTALL}"
        ) from error
    divisor = int(np.gcd(sample_rate, RECOGNISER_RATE))
    up, down = RECOGNISER_RATE // divisor, sample_rate // divisor
    return np.asarray(resample_poly(sound, up, down), dtype=np.float32)
