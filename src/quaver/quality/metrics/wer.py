"""Word error rate by a small recogniser that ships its model in its wheel.

PocketSphinx is no match for a large recogniser, but it needs no download, runs on any CPU and
gives the same answer every time. That is what a paired comparison asks for: both sides are heard
by the same judge, and its own mistakes cancel in the difference. Judge absolute rates with care.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import InputError, UnsupportedError
from quaver.quality.metrics.hearing import HEARING_RATE, words_at_16_khz
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.packages import QUALITY, installed
from quaver.quality.words import normalise

__all__ = ["Listener", "WordErrorRate", "normalise", "word_errors"]

_PADDING_SECONDS = 0.3  # the decoder needs silence to find the first and the last word
_DITHER = 3e-4  # of full scale, RMS; digital silence would give a log of zero
_INSTALL = f"install it with pip install {QUALITY}"


class Listener(ABC):
    """Hears speech and counts the words that differ from what should have been said.

    The rate of a corpus is the sum of errors over the sum of words, not a mean of rates.
    """

    unit = "share"
    higher_is_better = False
    kind = Kind.SPEECH

    @abstractmethod
    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> str:
        """The words heard in `samples` [n] in -1..1; empty if there are none.

        Raises InputError for a sample rate below 8 kHz or samples that are not finite.
        """

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        """Errors over words, weighted by words. All words of silence are deleted: that is 1."""
        return self.hear(candidate)[0]

    def hear(self, speech: Speech) -> tuple[Score | NotMeasured, str | None]:
        """The score, and the transcript that it is of, from listening once."""
        if not normalise(speech.text):
            return NotMeasured("no words are known to be said"), None
        try:
            heard = self.transcribe(speech.samples, speech.sample_rate)
            errors, words = word_errors(speech.text, heard)
        except (InputError, UnsupportedError) as error:
            return NotMeasured(str(error)), None
        return Score(errors / words, weight=words), heard

    def errors(
        self, reference: str, samples: NDArray[np.float32], sample_rate: int
    ) -> tuple[int, int]:
        """(errors, words) of `samples` [n] against the text `reference`."""
        return word_errors(reference, self.transcribe(samples, sample_rate))


class WordErrorRate(Listener):
    """Word errors over words, as PocketSphinx hears them.

    Loading takes about a second; one judge serves any number of utterances, one at a time. What it
    hears does not depend on what it heard before.
    """

    name = "wer"
    valid_for = "plain English by a natural voice, one recogniser on both sides; not for absolutes"

    def __init__(self) -> None:
        installed("jiwer", "word error rate", QUALITY)
        self._decoder = recogniser("word error rate")
        self.version = f"pocketsphinx {version('pocketsphinx')}"

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> str:
        sound = for_recogniser(samples, sample_rate)
        if sound is None:
            return ""
        listen(self._decoder, sound)
        heard = self._decoder.hyp()
        return "" if heard is None else str(heard.hypstr)


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


def recogniser(purpose: str, **options: Any) -> Any:
    """A PocketSphinx decoder of US English, with its bundled models unless `options` say else.

    Raises UnsupportedError, which names the `purpose`, where the package is not installed.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise UnsupportedError(f"{purpose} needs pocketsphinx; {_INSTALL}") from error
    # Mean normalisation over each whole utterance: the default adapts from one to the next.
    return Decoder(samprate=HEARING_RATE, cmn="batch", loglevel="FATAL", **options)


def listen(decoder: Any, sound: NDArray[np.int16]) -> None:
    """Let `decoder` hear one utterance [n] from start to end, as if it were its first."""
    # Without this its features and scores keep a trace of the utterance before, and what it hears
    # would depend on the order.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(sound.tobytes(), full_utt=True)
    decoder.end_utt()


def for_recogniser(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.int16] | None:
    """Samples [n] as int16 at 16 kHz with faintly noisy silence on either side; None for silence.

    Raises InputError for a sample rate below 8 kHz or samples that are not finite.
    """
    sound = words_at_16_khz(samples, sample_rate)
    if sound is None:
        return None
    count = int(_PADDING_SECONDS * HEARING_RATE)
    noise = np.random.default_rng(0).normal(0.0, _DITHER, len(sound) + 2 * count)
    padded = noise + np.pad(sound, count)
    return np.rint(np.clip(padded, -1.0, 1.0) * 32767.0).astype(np.int16)
