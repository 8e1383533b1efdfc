"""Judges of one utterance: each against a closed form, and against damage that it must hear."""

import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from needs import NO_FLITE
from quaver.core.errors import UnsupportedError
from quaver.quality.metrics.alignment import UNALIGNED, Alignment
from quaver.quality.metrics.failures import Failures, failures, longest_run, repeated_seconds
from quaver.quality.metrics.hearing import voice_at_16_khz
from quaver.quality.metrics.metric import NotMeasured, Score, Speech
from quaver.quality.metrics.mos import WINDOW, DistilMos, filling_the_window
from quaver.quality.metrics.pace import Duration, frame_levels, spoken_span
from quaver.quality.metrics.pauses import DEEPEST_DB, PauseNoise
from quaver.quality.metrics.wer import WordErrorRate
from quaver.quality.panel import PLAIN_SENTENCES

RATE = 24_000
TEXT = PLAIN_SENTENCES[6]  # 46 characters


def babble(seconds=3.0, seed=0, rate=RATE):
    """Syllables of gliding pitch and changing formants with short gaps, which die away at the
    end: [n], peak 0.5."""
    rng = np.random.default_rng(seed)
    parts, made = [], 0
    while made < seconds * rate:
        n = int(rng.uniform(0.10, 0.25) * rate)
        time = np.arange(n) / rate
        pitch = rng.uniform(90, 160) + rng.uniform(-60, 60) * time
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        formants = rng.uniform([300, 900, 2200], [800, 2100, 3300])
        harmonics = np.arange(1, 40)
        distance = (harmonics[:, None] * pitch.mean() - formants) / [80, 120, 200]
        weight = (1 / (1 + distance**2)).sum(1) / np.sqrt(harmonics)
        voiced = (weight[:, None] * np.sin(harmonics[:, None] * phase)).sum(0)
        breath = rng.normal(0, 0.05, n)
        gap = np.zeros(int(rng.uniform(0.01, 0.09) * rate))
        parts += [(voiced + breath) * np.hanning(n) ** 0.5, gap]
        made += n + len(gap)
    sound = np.concatenate(parts)[: int(seconds * rate)]
    tail = int(0.2 * rate)
    sound[-tail:] *= np.linspace(1, 0, tail) ** 4
    return (sound / np.abs(sound).max() * 0.5).astype(np.float32)


def speech(samples, text=TEXT, rate=RATE, **more):
    return Speech(np.asarray(samples, dtype=np.float32), rate, text, **more)


def tone(seconds, amplitude, hertz=3000, rate=RATE):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def noisy(samples, decibels, seed=1):
    """White noise so many dB below the mean power of `samples`."""
    noise = np.random.default_rng(seed).normal(0, 1, len(samples))
    return samples + noise * samples.std() * 10 ** (-decibels / 20)


needs_distillmos = pytest.mark.skipif(
    not (find_spec("distillmos") and find_spec("xls_r_sqa")),
    reason="DistillMOS is not installed: pip install distillmos xls-r-sqa",
)


@pytest.fixture(scope="module")
def spoken():
    """One sentence by the bundled voice."""
    import quaver

    audio = quaver.load("nano").generate(TEXT, voice="rms", seed=1)
    return Speech(audio.samples, audio.sample_rate, TEXT)


@pytest.fixture(scope="module")
def alignment():
    return Alignment()


@pytest.fixture(scope="module")
def wer():
    return WordErrorRate()


@pytest.fixture(
    params=[
        *("wer", "alignment", PauseNoise, Failures, Duration),
        pytest.param(DistilMos, marks=needs_distillmos),
    ]
)
def metric(request):
    named = isinstance(request.param, str)
    return request.getfixturevalue(request.param) if named else request.param()


def test_what_is_not_finite_is_never_a_good_number(metric):
    for value in (np.nan, np.inf):
        sound = babble()
        sound[1000] = value
        result = metric.measure(speech(sound))
        if metric.name == "failures":
            assert result == Score(1.0)
        else:
            assert isinstance(result, NotMeasured) and "NaN" in result.reason


@pytest.mark.parametrize("sound", [np.zeros(0), np.zeros(RATE), np.full(RATE, 1e-4)])
def test_silence(metric, sound):
    """Nothing said is the worst for judges of words, a failure, and no number for all others."""
    worst = {"wer": Score(1.0, weight=9), "alignment": Score(UNALIGNED), "failures": Score(1.0)}
    result = metric.measure(speech(sound))
    if metric.name in worst:
        assert result == worst[metric.name]
    else:
        assert isinstance(result, NotMeasured) and "audible" in result.reason


@pytest.mark.parametrize("name", ["wer", "alignment"])
def test_judges_of_words_need_words_and_a_sample_rate(name, request):
    judge = request.getfixturevalue(name)
    assert "no words" in judge.measure(speech(babble(), text="...")).reason
    assert "8000" in judge.measure(speech(babble(), rate=4000)).reason


# Words


def test_word_error_rate_is_errors_over_words(wer, spoken):
    errors, words = wer.errors(TEXT, spoken.samples, RATE)
    assert wer.measure(spoken) == Score(errors / 9, weight=words) and words == 9
    assert errors <= 2
    assert wer.measure(replace(spoken, samples=spoken.samples[: RATE // 2])).value > 0.5
    assert wer.measure(replace(spoken, text="Good morning.")).weight == 2


def test_alignment_falls_with_damage(alignment, spoken):
    clean, *damaged = (
        alignment.measure(replace(spoken, samples=np.float32(samples))).value
        for samples in (
            spoken.samples,
            noisy(spoken.samples, 25),
            noisy(spoken.samples, 15),
            np.clip(spoken.samples / np.abs(spoken.samples).max(), -0.1, 0.1),
        )
    )
    assert -1.4 < clean < -0.7  # what good voices score
    assert clean > damaged[0] + 0.1 and damaged[0] > damaged[1] + 0.2
    assert clean > damaged[2] + 0.5
    middle = len(spoken.samples) // 2
    twice = np.concatenate([spoken.samples[: middle + RATE // 2], spoken.samples[middle:]])
    assert alignment.measure(replace(spoken, samples=twice)).value < clean - 0.2


def test_alignment_fails_where_words_are_missing(alignment, spoken):
    half = replace(spoken, samples=spoken.samples[: len(spoken.samples) // 2])
    assert alignment.measure(half) == Score(UNALIGNED)
    wrong = replace(spoken, text=PLAIN_SENTENCES[3])
    assert alignment.measure(wrong).value < -2
    strange = replace(spoken, text="The qwzz was late for the frobnication.")
    assert alignment.measure(strange).reason == "not in the dictionary: frobnication, qwzz"


def test_alignment_does_not_depend_on_silence_around_or_on_what_came_before(alignment, spoken):
    clean = alignment.measure(spoken).value
    alignment.measure(speech(noisy(babble(), 10)))
    assert alignment.measure(spoken).value == clean
    padded = np.pad(spoken.samples, (RATE, 2 * RATE))
    assert alignment.measure(replace(spoken, samples=padded)).value == pytest.approx(clean, abs=0.1)


def test_a_missing_recogniser_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UnsupportedError, match=r"alignment needs.*pip install 'quaver\[quality\]'"):
        Alignment()


# Pace


def test_duration_is_from_the_first_sound_to_the_last():
    sound = np.concatenate([np.zeros(RATE // 2), tone(1.5, 0.3), np.zeros(RATE)])
    assert Duration().measure(speech(sound)) == Score(1.5)
    parted = np.concatenate([tone(0.5, 0.3), np.zeros(RATE), tone(0.5, 0.3)])
    assert Duration().measure(speech(parted)) == Score(2.0)


def test_duration_ignores_gain_offset_hiss_and_silence_but_not_loss():
    sound = np.pad(babble(), RATE // 2)
    whole = Duration().measure(speech(sound)).value
    hiss = noisy(sound, 45)
    for same in (sound / 3, sound + 0.05, hiss, np.pad(sound, (0, 2 * RATE))):
        assert Duration().measure(speech(same)).value == pytest.approx(whole, abs=0.03)
    half = Duration().measure(speech(sound[: len(sound) // 2])).value
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_levels_are_those_of_a_sine_and_cover_the_last_bit():
    levels = frame_levels(tone(1.005, 0.1), RATE)
    assert len(levels) == 101
    np.testing.assert_allclose(levels[:100], -23.01, atol=0.01)
    assert frame_levels(np.zeros(5), RATE).tolist() == [-200.0]
    assert spoken_span(speech(tone(1.005, 0.1))) == (0, int(1.005 * RATE))


# Pauses


@pytest.mark.parametrize("decibels", [10, 25, 40, 55])
def test_pause_noise_is_the_ratio_of_two_known_levels(decibels):
    quiet = tone(0.6, 0.5 * 10 ** (-decibels / 20))
    sound = np.concatenate([tone(1.0, 0.5), quiet, tone(1.0, 0.5)])
    assert PauseNoise().measure(speech(sound)).value == pytest.approx(decibels, abs=0.01)


def test_pause_noise_agrees_with_a_filter_in_time():
    sound = noisy(np.pad(babble(), RATE // 10), 40)
    band = sosfiltfilt(butter(8, [1000, 7000], "bandpass", fs=RATE, output="sos"), sound)
    power = np.convolve(band**2, np.ones(480) / 480, "valid")[::240]
    level = 10 * np.log10(power)
    expected = np.percentile(level, 95) - np.percentile(level, 10)
    assert PauseNoise().measure(speech(sound)).value == pytest.approx(expected, abs=1.5)


def test_pause_noise_hears_hiss_in_order_and_only_in_its_band():
    sound = np.pad(babble(), RATE // 5)
    score = {db: PauseNoise().measure(speech(noisy(sound, db))).value for db in (60, 45, 30, 15)}
    assert score[60] > score[45] + 8 > score[30] + 16 > score[15] + 24
    clean = PauseNoise().measure(speech(sound)).value
    assert clean == DEEPEST_DB  # digital silence, clamped
    hum = sound + tone(len(sound) / RATE, 0.02, hertz=50)
    assert PauseNoise().measure(speech(hum)).value > 50
    pause = np.where(np.abs(sound) > 0, sound, noisy(sound, 25) - sound)
    assert PauseNoise().measure(speech(pause)).value < 35


def test_appended_silence_does_not_hide_hiss():
    hiss = noisy(np.pad(babble(), RATE // 5), 30)
    before = PauseNoise().measure(speech(hiss)).value
    after = PauseNoise().measure(speech(np.pad(hiss, (0, 4 * RATE)))).value
    assert after < before + 3


def test_pause_noise_needs_length_and_band():
    assert "too short" in PauseNoise().measure(speech(babble(0.3))).reason
    assert "14000" in PauseNoise().measure(speech(babble(2, rate=8000), rate=8000)).reason


# Failures


@pytest.mark.parametrize("seed", range(5))
def test_healthy_sound_has_no_failures(seed):
    sound = np.pad(babble(seed=seed), RATE)
    for healthy in (sound, noisy(sound, 20), sound / np.abs(sound).max(), sound / 30):
        assert failures(speech(healthy)) == ()
    assert Failures().measure(speech(sound)) == Score(0.0)


def test_the_bundled_voice_has_no_failures(spoken):
    assert failures(spoken) == () and Failures().measure(spoken) == Score(0.0)


def _cut(sound, at, what):
    return np.concatenate([sound[:at], what, sound[at:]])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("nan", lambda s: _cut(s, 99, [np.nan])),
        ("rails", lambda s: _cut(s, RATE, np.full(RATE // 50, 1.0))),
        ("rails", lambda s: _cut(s, RATE, np.full(RATE // 50, -3.0))),
        ("rails", lambda s: np.clip(30 * s, -1, 1)),
        ("dc", lambda s: s + 0.05),
        ("silence", lambda s: s * 0),
        ("silence", lambda s: s / 1000),
        ("silence", lambda s: s[:0]),
        ("silence", lambda s: np.pad(s, (0, 4 * RATE))),
        ("silence", lambda s: _cut(s, RATE, np.zeros(4 * RATE))),
        ("early stop", lambda s: s[: len(s) // 3]),
        ("stutter", lambda s: _cut(s, RATE, s[RATE // 2 : RATE])),
        ("stutter", lambda s: _cut(s, 3 * RATE // 2, noisy(s[RATE : 3 * RATE // 2], 20))),
        ("stutter", lambda s: _cut(s, RATE, 0.7 * s[RATE - 9800 : RATE])),
        ("stutter", lambda s: _cut(s, RATE, np.tile(s[RATE - 4001 : RATE], 5))),
    ],
)
def test_each_failure_has_its_name(name, damage):
    found = failures(speech(damage(babble())))
    assert name in found and len(found) == 1 + (name == "rails" and "dc" in found)
    assert Failures().measure(speech(damage(babble()))) == Score(1.0)


def test_thresholds_lie_where_they_say():
    sound = babble()
    assert failures(speech(_cut(sound, RATE, np.ones(RATE * 8 // 1000)))) == ()
    assert failures(speech(sound + 0.02)) == ()
    assert failures(speech(np.pad(sound, (0, 5 * RATE // 2)))) == ()
    text = "a" * 90  # 32 a second: 2.8 s, and the speech has 3
    assert failures(speech(sound, text=text)) == ()
    assert failures(speech(sound, text=text + text[:20])) == ("early stop",)
    assert longest_run(np.array([1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)) == 3
    assert longest_run(np.zeros(0, dtype=bool)) == 0


def test_a_sentence_that_does_not_die_away_was_cut():
    sound = babble()
    assert failures(speech(sound)) == ()
    loud = np.abs(sound[: 2 * RATE + RATE // 2]) > 0.1
    assert failures(speech(sound[: np.flatnonzero(loud)[-1]])) == ("early stop",)


def test_numbers_count_as_they_are_said():
    second = speech(babble(1.0), text="1,234,567")
    assert failures(second) == ("early stop",)
    assert failures(replace(second, text="12")) == ()


def test_what_is_said_twice_or_held_is_no_stutter():
    first, second = babble(0.5, seed=3), babble(0.5, seed=4)
    again = np.concatenate([babble(1.0), first, second, 0.9 * first[::-1], babble(1.0, seed=5)])
    assert repeated_seconds(speech(again)) < 0.2
    held = np.concatenate([babble(1.0), tone(0.4, 0.3, hertz=125), babble(1.0, seed=5)])
    assert repeated_seconds(speech(held)) < 0.29
    assert repeated_seconds(speech(np.zeros(3 * RATE))) == 0
    assert repeated_seconds(speech(np.zeros(0))) == 0


def test_a_repeated_stretch_is_found_for_as_long_as_it_is():
    sound = babble(rate=16_000)
    twice = np.concatenate([sound[:20_000], sound[10_000:]])
    assert 0.4 < repeated_seconds(speech(twice, rate=16_000)) <= 10_000 / 16_000


@pytest.mark.parametrize(
    ("reason", "name"),
    [("length", "runaway"), ("repetition", "loop"), ("cancelled", "cut"), ("silence", "silence")],
)
def test_a_finish_that_is_no_stop_is_a_failure(reason, name):
    assert failures(speech(babble(), finish_reasons=("stop", reason, reason))) == (name,)


def test_no_text_is_no_clean_bill():
    assert "no words" in Failures().measure(speech(babble(), text="")).reason
    assert Failures().measure(speech(babble() + 0.1, text="")) == Score(1.0)


# Predicted quality


def _fake_network(monkeypatch, seen):
    import torch

    class ConvTransformerSQAModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            print("weights loaded")
            seen["torchaudio"] = sys.modules["torchaudio"]

        def forward(self, x):
            seen["shape"], seen["dtype"], seen["training"] = x.shape, x.dtype, self.training
            return 1 + 4 * (x**2).mean(1, keepdim=True)

    monkeypatch.setattr("quaver.quality.metrics.packages.version", lambda package: "1")
    module = ModuleType("distillmos")
    module.ConvTransformerSQAModel = ConvTransformerSQAModel
    monkeypatch.setitem(sys.modules, "distillmos", module)


def test_mos_that_cannot_be_imported_is_not_measured(monkeypatch):
    monkeypatch.setattr("quaver.quality.metrics.packages.version", lambda package: "1")
    monkeypatch.setitem(sys.modules, "distillmos", None)
    result = DistilMos().measure(speech(babble()))
    assert isinstance(result, NotMeasured) and "cannot load distillmos" in result.reason


def test_mos_asks_the_network_quietly_and_leaves_no_stand_in(monkeypatch, capsys):
    seen = {}
    _fake_network(monkeypatch, seen)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    candidate = speech(tone(1.0, 0.5, hertz=1000))
    score = DistilMos().measure(candidate).value
    assert score == pytest.approx(1 + 4 * 0.125, abs=0.01)
    assert seen["shape"] == (1, WINDOW) and str(seen["dtype"]) == "torch.float32"
    assert not seen["training"] and seen["torchaudio"].__spec__ is not None
    assert "torchaudio" not in sys.modules and capsys.readouterr().out == ""
    assert "too short" in DistilMos().measure(speech(babble(0.3))).reason


def test_short_speech_is_repeated_and_long_speech_kept():
    def fill(each):
        return filling_the_window(voice_at_16_khz(each))

    sound = babble(2.0, rate=16_000)
    heard = fill(speech(np.pad(sound, (32_000, 64_000)), rate=16_000))
    first, last = spoken_span(speech(sound, rate=16_000))
    period = last - first + 2 * 3200  # about 2.4 s, which go three times into 7.68 s
    assert len(heard) == WINDOW
    np.testing.assert_array_equal(heard[period : 3 * period], heard[: 2 * period])
    assert len(fill(speech(babble(10.0)))) == pytest.approx(160_000, abs=3000)


@needs_distillmos
def test_mos_ignores_level(spoken):
    judge = DistilMos()
    clean = judge.measure(spoken).value
    quiet = judge.measure(replace(spoken, samples=spoken.samples / 4)).value
    assert quiet == pytest.approx(clean, abs=0.1)


# Known damage in its order


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The sentence by a clean voice: what a judge makes of damage does not hang on our model."""
    if shutil.which("flite") is None:
        pytest.skip(NO_FLITE)
    from quaver.train.synthesis import speak

    samples, rate = speak(TEXT, "rms", tmp_path_factory.mktemp("voice") / "speech.wav")
    return speech(samples / 32768.0, rate=rate)


def low_pass(samples, hertz, rate):
    return sosfiltfilt(butter(8, hertz, fs=rate, output="sos"), samples)


def clipped(samples, share):
    limit = share * np.abs(samples).max()
    return np.clip(samples, -limit, limit)


LADDERS = {
    "white noise": [lambda x, r, d=d: noisy(x, d) for d in (40, 30, 20)],
    "low-pass": [lambda x, r, f=f: low_pass(x, f, r) for f in (4000, 2000, 1000)],
    "clipping": [lambda x, r, s=s: clipped(x, s) for s in (0.5, 0.2, 0.05)],
}


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("judge", ["wer", "alignment", pytest.param("mos", marks=needs_distillmos)])
def test_more_damage_reads_worse(judge, ladder, studio, request):
    metric = DistilMos() if judge == "mos" else request.getfixturevalue(judge)
    sounds = [damage(studio.samples, studio.sample_rate) for damage in LADDERS[ladder]]
    values = [
        metric.measure(replace(studio, samples=np.float32(sound))).value
        for sound in (studio.samples, *sounds)
    ]
    steps = np.diff(values) * (1 if metric.higher_is_better else -1)
    if judge == "wer":  # a count of nine words: it rests before it rises
        assert (steps <= 0).all() and values[-1] > values[0] + 0.1, values
    else:
        assert (steps < 0).all(), values
