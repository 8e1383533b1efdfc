"""The bundled voice really speaks: judged by a recogniser, not by its own output."""

import numpy as np
import pytest

import quaver
from quaver.audio.levels import rms_dbfs
from quaver.core.types import FinishReason
from quaver.quality.metrics.wer import WordErrorRate
from quaver.quality.panel import PLAIN_SENTENCES

MOST_ERRORS = 0.25  # of a few dozen words; noise and wrong sentences score near 1


@pytest.fixture(scope="module")
def nano():
    return quaver.load("nano", device="cpu")


def test_it_is_what_it_says(nano):
    info = nano.info()
    assert info["family"] == "orpheus"
    assert info["voices"] == ["slt", "rms", "awb"]
    assert info["sample_rate"] == 24000
    assert 10e6 < info["parameters"] < 20e6


def test_a_greeting_is_speech_and_repeats(nano):
    first, second = (nano.generate("Hello there.", seed=1) for _ in range(2))
    assert np.array_equal(first.samples, second.samples)
    assert first.stats.finish_reasons == [FinishReason.STOP]
    assert 0.3 < first.seconds < 3.0
    assert -40 < rms_dbfs(first.samples) < -10


@pytest.mark.slow
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
def test_words_are_understood(nano, voice):
    judge = WordErrorRate()
    errors = words = 0
    for seed, text in enumerate(PLAIN_SENTENCES[:4]):
        audio = nano.generate(text, voice=voice, seed=seed)
        assert audio.stats.finish_reasons == [FinishReason.STOP]
        wrong, of = judge.errors(text, audio.samples, audio.sample_rate)
        errors, words = errors + wrong, words + of
    assert errors / words < MOST_ERRORS, f"{voice}: {errors} of {words} words wrong"
