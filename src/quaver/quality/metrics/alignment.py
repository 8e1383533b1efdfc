"""How well does the sound fit the text? Forced alignment by the recogniser of `metrics.wer`.

The recogniser is told the words and only finds where each one is. How likely it then holds the
sound to be, a frame, is one smooth number of each utterance. It moves with hiss, clipping or a
swallowed sound long before a word is misheard, so few utterances tell what a word error rate needs
thousands of words for. It does not see sound that follows the last word; `failures` does.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import numpy as np

from quaver.core.errors import InputError, UnsupportedError
from quaver.quality.metrics.hearing import trimmed
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.wer import for_recogniser, listen, recogniser
from quaver.quality.words import normalise

# What an utterance scores that does not fit its text at all, and the worst that any can score.
# Wrong words that could be aligned scored about -5. One failure in 40 so moves the mean by more
# than 0.1, which hiss at 40 dB does to all.
UNALIGNED = -6.0
_LEAST_LIKELIHOOD = 1e-300  # the package gives likelihoods, which run out of exponent


class Alignment:
    """Mean log likelihood a frame of 10 ms, over the frames of words; about -1 for good voices."""

    name = "alignment"
    unit = "nats a frame"
    higher_is_better = True
    kind = Kind.SPEECH
    valid_for = "English of words in the CMU dictionary; paired differences, not levels"

    def __init__(self) -> None:
        self._decoder: Any = recogniser("alignment", lm=None)
        self.version = f"pocketsphinx {version('pocketsphinx')}"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        """The score; UNALIGNED where the words are not to be found, as in silence."""
        words = normalise(candidate.text).split()
        if not words:
            return NotMeasured("no words are known to be said")
        if strange := sorted({word for word in words if not self._decoder.lookup_word(word)}):
            return NotMeasured(f"not in the dictionary: {', '.join(strange)}")
        try:
            found = self._align(words, candidate)
        except (InputError, UnsupportedError) as error:
            return NotMeasured(str(error))
        return Score(UNALIGNED if found is None else max(found, UNALIGNED))

    def _align(self, words: list[str], speech: Speech) -> float | None:
        """Mean log likelihood a frame of words; None if the words cannot be laid over the sound."""
        samples = np.asarray(speech.samples, dtype=np.float32)
        # The recogniser takes the mean cepstrum of all that it is given: two seconds of appended
        # silence would cost 0.1 a frame, more than much audible damage does.
        heard = trimmed(speech) if np.isfinite(samples).all() else samples
        sound = for_recogniser(heard, speech.sample_rate)
        if sound is None:
            return None
        self._decoder.set_align_text(" ".join(words))
        listen(self._decoder, sound)
        if self._decoder.hyp() is None:
            return None
        likelihood, frames = 0.0, 0
        for part in self._decoder.seg():
            if not part.word.startswith("<"):  # <sil> and its like
                likelihood += math.log(max(part.ascore, _LEAST_LIKELIHOOD))
                frames += part.end_frame - part.start_frame + 1
        return likelihood / frames if frames else None
