"""Judges of the voice, for two utterances that need not be in step."""

import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import signal

from needs import NO_FLITE
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.similarity import (
    SpeakerSimilarity,
    mel_windows,
    similarity,
    slaney_filters,
)
from quaver.quality.metrics.speaker import VoiceDistance

RATE = 16_000
needs_weights = pytest.mark.skipif(
    not find_spec("resemblyzer"), reason="resemblyzer is not installed: pip install resemblyzer"
)
JUDGES = [VoiceDistance, pytest.param(SpeakerSimilarity, marks=needs_weights)]


def glide(seconds, hertz):
    """Harmonics under a slow vibrato: [n]."""
    time = np.arange(int(RATE * seconds)) / RATE
    phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))) / RATE
    return 0.05 * sum(np.sin(k * phase) / k for k in range(1, 20)).astype(np.float32)


def spoken(samples, rate=RATE):
    return Speech(np.asarray(samples, dtype=np.float32), rate)


def value(metric, candidate, reference):
    score = metric().measure(spoken(candidate), spoken(reference))
    assert isinstance(score, Score), score
    return score.value


def noisy(samples, decibels):
    noise = np.random.default_rng(0).normal(size=len(samples))
    return samples + noise * np.std(samples) * 10 ** (-decibels / 20)


def low_pass(samples, hertz):
    return signal.sosfiltfilt(signal.butter(8, hertz, fs=RATE, output="sos"), samples)


def clipped(samples, share):
    limit = share * np.abs(samples).max()
    return np.clip(samples, -limit, limit)


@pytest.fixture(scope="module")
def say(tmp_path_factory):
    """Speech [n] of a sentence by one of flite's voices, at 16 kHz."""
    if shutil.which("flite") is None:
        pytest.skip(NO_FLITE)
    from quaver.train.synthesis import speak

    scratch = tmp_path_factory.mktemp("voice") / "speech.wav"

    def say(text, voice):
        samples, rate = speak(text, voice, scratch)
        assert rate == RATE
        return samples / 32768.0

    return say


BREAD = "We walked to the market and bought some bread."
TRAIN = "The train was late again, so she read her book."


@pytest.mark.parametrize("metric", JUDGES)
def test_a_judge_of_voices_compares_twins(metric):
    assert metric.kind is Kind.TWIN
    good, faults = glide(1.0, 120), [np.zeros(RATE), np.full(RATE, np.nan), glide(0.1, 120)]
    for fault in faults:
        for pair, side in (((fault, good), "candidate"), ((good, fault), "reference")):
            result = metric().measure(*map(spoken, pair))
            assert isinstance(result, NotMeasured) and side in result.reason
    assert "no reference" in metric().measure(spoken(good)).reason
    assert "4000" in metric().measure(spoken(good, 4000), spoken(good)).reason


@pytest.mark.parametrize("metric", JUDGES)
def test_a_voice_is_nearer_to_itself_than_to_another(metric, say):
    own = value(metric, say(BREAD, "rms"), say(TRAIN, "rms"))
    for other in ("slt", "awb"):
        theirs = value(metric, say(BREAD, other), say(BREAD, "rms"))
        assert (theirs < own) is metric.higher_is_better, (own, other, theirs)


@pytest.mark.parametrize("metric", JUDGES)
def test_level_timing_and_rate_are_no_matter(metric, say):
    x = say(BREAD, "rms")
    best = 1.0 if metric.higher_is_better else 0.0
    assert value(metric, x, x) == pytest.approx(best, abs=1e-6)
    assert value(metric, 2 * x, x) == pytest.approx(best, abs=1e-3)
    later = np.concatenate([np.zeros(RATE // 2), x, np.zeros(RATE)])
    assert value(metric, later, x) == pytest.approx(best, abs=0.3 if best == 0 else 0.02)
    faster = metric().measure(spoken(signal.resample_poly(x, 3, 2), 24_000), spoken(x))
    assert faster.value == pytest.approx(best, abs=0.3 if best == 0 else 0.02)


LADDERS = {
    "white noise": [lambda x, d=d: noisy(x, d) for d in (40, 30, 20)],
    "low-pass": [lambda x, f=f: low_pass(x, f) for f in (4000, 2000)],
    "clipping": [lambda x, s=s: clipped(x, s) for s in (0.5, 0.2, 0.05)],
}


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("metric", JUDGES)
def test_more_damage_reads_worse(metric, ladder, say):
    x = say(BREAD, "rms")
    values = [value(metric, x, x), *(value(metric, y(x), x) for y in LADDERS[ladder])]
    steps = np.diff(values) * (1 if metric.higher_is_better else -1)
    assert (steps < 0).all(), values


@pytest.mark.parametrize("decibels", [2.0, 6.0])
def test_the_distance_of_a_filter_is_its_gain(decibels):
    """A gain of one cosine over the mel scale is one cepstrum; its root mean square is known."""
    noise = 0.1 * np.random.default_rng(0).normal(size=20 * RATE)
    spectrum = np.fft.rfft(noise)
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (80, 7000))
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(len(noise), 1 / RATE) / 700)
    gain = decibels * np.cos(3 * np.pi * np.clip((mel - low) / (high - low), 0, 1))
    filtered = np.fft.irfft(spectrum * 10 ** (gain / 20), len(noise))
    found = value(VoiceDistance, filtered, noise)
    assert found == pytest.approx(decibels / np.sqrt(2), rel=0.05)


def test_the_cosine_is_of_what_was_embedded():
    def embed(sound):
        return np.array([sound[len(sound) // 2], 1.0])

    def constant(height):
        return spoken(np.where(np.arange(RATE) % 2, height, 0.3))  # an offset would be inaudible

    score = similarity(constant(0.1), constant(0.9), embed)
    a, b = (embed(constant(h).samples) for h in (0.1, 0.9))
    assert score.value == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))


# Resemblyzer 0.1.4 with librosa 0.11, of glide(2.5, 120) and glide(3.9, 210) after its own
# `normalize_volume(x, -30)`: `wav_to_mel_spectrogram(x)[40, BANDS]` and `embed_utterance(x)`.
BANDS = [0, 5, 12, 25]
THEIR_MEL = ([4.2427849e-02, 2.2031570e-02, 2.1043874e-03, 4.2955467e-04],)
THEIR_MEL += ([5.7423213e-06, 1.4182073e-02, 6.0055694e-03, 7.4038975e-04],)
THEIR_PEAKS = [(189, 0.19937724), (253, 0.23526865)]
THEIR_COSINE = 0.595429539680481


@pytest.mark.parametrize(("which", "windows"), [(0, 2), (1, 4)])
def test_the_front_end_is_resemblyzers(which, windows):
    mel = mel_windows((glide(2.5, 120), glide(3.9, 210))[which])
    assert mel.shape == (windows, 160, 40)
    np.testing.assert_allclose(mel[0, 40, BANDS], THEIR_MEL[which], rtol=1e-4)


def test_a_window_needs_three_quarters_of_sound_unless_it_is_the_first():
    for seconds, windows in ((0.5, 1), (1.96, 1), (1.98, 2), (2.73, 2), (2.75, 3)):
        assert len(mel_windows(glide(seconds, 120))) == windows, seconds


def test_filters_have_unit_area():
    filters = slaney_filters()
    assert filters.shape == (40, 201)
    wide = filters[25:]  # narrow ones are sampled too coarsely
    np.testing.assert_allclose(wide.sum(1) * 40, 1, rtol=0.02)


@needs_weights
def test_the_embedding_is_resemblyzers():
    from importlib.metadata import distribution

    from quaver.quality.metrics.similarity import embedding, load

    network = load(distribution("resemblyzer").locate_file("resemblyzer/pretrained.pt"))
    vectors = [embedding(network, x).detach() for x in (glide(2.5, 120), glide(3.9, 210))]
    for vector, (place, height) in zip(vectors, THEIR_PEAKS, strict=True):
        assert int(vector.argmax()) == place
        assert float(vector.max()) == pytest.approx(height, abs=1e-5)
    assert float(vectors[0] @ vectors[1]) == pytest.approx(THEIR_COSINE, abs=1e-5)
