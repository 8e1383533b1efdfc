"""Voices are told apart whatever they say, however loud and at whichever rate."""

import subprocess
import wave

import numpy as np
import pytest

from needs import needs_flite
from quaver.core.errors import InputError
from quaver.quality.metrics.speaker import SpeakerClassifier, speaker_features
from quaver.quality.panel import PLAIN_SENTENCES

VOICES = ("slt", "rms", "awb")


def tone(hertz, rate=16_000, seconds=1.0, seed=0):
    """A buzz with a little noise: a stand-in for a voice."""
    time = np.arange(int(rate * seconds)) / rate
    harmonics = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).normal(0, 0.02, len(time))
    return (0.1 * (harmonics + noise)).astype(np.float32)


def test_features_hold_the_pitch():
    features = speaker_features(tone(120), 16_000)
    assert features.shape == (30,)
    assert np.exp(features[28]) == pytest.approx(120, rel=0.02)


def test_features_ignore_loudness():
    quiet = speaker_features(0.1 * tone(150), 16_000)
    np.testing.assert_allclose(quiet, speaker_features(tone(150), 16_000), atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "rate", "match"),
    [
        (np.zeros(16_000, dtype=np.float32), 16_000, "silent"),
        (tone(120)[:1000], 16_000, "at least"),
        (tone(120), 8000, "sample rate"),
    ],
)
def test_unusable_sound_is_refused(samples, rate, match):
    with pytest.raises(InputError, match=match):
        speaker_features(samples, rate)


def test_one_voice_is_not_enough():
    with pytest.raises(InputError, match="two voices"):
        SpeakerClassifier.fit([(tone(100), 16_000, "a"), (tone(101), 16_000, "a")])


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Twelve sentences by each voice: [(index of the sentence, samples, rate, voice)]."""
    path = tmp_path_factory.mktemp("voices") / "speech.wav"
    spoken = []
    for voice in VOICES:
        for index, text in enumerate(PLAIN_SENTENCES[:12]):
            subprocess.run(["flite", "-voice", voice, "-t", text, "-o", path], check=True)
            with wave.open(str(path)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
                rate = file.getframerate()
            spoken.append((index, samples.astype(np.float32) / 32768, rate, voice))
    return spoken


@needs_flite
def test_voices_are_told_apart_on_other_sentences(speech):
    for fold in range(3):
        known = [(s, rate, voice) for i, s, rate, voice in speech if i % 3 != fold]
        classifier = SpeakerClassifier.fit(known)
        for index, samples, rate, voice in speech:
            if index % 3 == fold:
                assert classifier.predict(samples, rate) == voice


@needs_flite
def test_the_sample_rate_may_differ(speech):
    from scipy.signal import resample_poly

    classifier = SpeakerClassifier.fit([(s, rate, v) for i, s, rate, v in speech if i < 6])
    for index, samples, rate, voice in speech:
        if index >= 10:
            faster = resample_poly(samples, 3, 2).astype(np.float32)
            assert classifier.predict(faster, rate * 3 // 2) == voice
