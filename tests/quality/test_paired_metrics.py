"""Paired metrics against closed forms, other implementations and known damage in its order."""

import shutil
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from scipy import signal

from needs import NO_FLITE
from quaver.core.errors import InputError
from quaver.quality.metrics.distance import RESOLUTIONS, LogSpectralDistance, MultiResolutionStft
from quaver.quality.metrics.intelligibility import Estoi, Pesq
from quaver.quality.metrics.logmel import SpectralCorrelation
from quaver.quality.metrics.metric import NotMeasured, Score, Speech
from quaver.quality.metrics.pitch import Pitch, PitchVoicing, pitch_track
from quaver.quality.metrics.snr import SiSdr, Snr
from quaver.quality.metrics.spectra import align, log_mel, mel_filters, mel_power, power_spectra

RATE = 16_000
OWN = (Snr, SiSdr, SpectralCorrelation, LogSpectralDistance, MultiResolutionStft, Pitch)
OWN += (PitchVoicing,)
JUDGES = ((Estoi, "pystoi"), (Pesq, "pesq"))
ALL = (*OWN, *(judge for judge, package in JUDGES if find_spec(package)))


def voice(rate=RATE, seconds=2.4, tempo=1.0, pitch=1.0):
    """Speech-like [n]: harmonics under moving formants, syllables, and digital pauses."""
    time = np.arange(int(rate * seconds / tempo)) / rate * tempo  # of the tale, not of the clock
    hertz = 120 * pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(hertz) / rate
    formants = (
        550 + 250 * np.sin(2 * np.pi * 1.3 * time),
        1600 + 500 * np.sin(2 * np.pi * 0.9 * time + 1),
        2600 + 200 * np.sin(2 * np.pi * 1.7 * time + 2),
        4200 + 300 * np.sin(2 * np.pi * 1.1 * time),
    )
    sound = np.zeros(len(time))
    for k in range(1, int(0.47 * rate / hertz.max())):
        height = sum(1 / (1 + ((k * hertz - f) / 120) ** 2) / f for f in formants)
        sound += height * np.sin(k * phase)
    syllables = np.clip(4 * np.sin(2 * np.pi * 1.6 * time), 0, 1) * (time % 1.0 < 0.8)
    return 0.3 * sound * syllables / np.abs(sound).max()


def flite(tmp_path_factory):
    if shutil.which("flite") is None:
        pytest.skip(NO_FLITE)
    from quaver.train.synthesis import speak

    scratch = tmp_path_factory.mktemp("voice") / "speech.wav"
    samples, rate = speak("We walked to the market and bought some bread.", "rms", scratch)
    assert rate == RATE
    return samples / 32768.0


@pytest.fixture(scope="module", params=["closed form", "flite"])
def speech(request, tmp_path_factory):
    return voice() if request.param == "closed form" else flite(tmp_path_factory)


def spoken(samples, rate=RATE):
    return Speech(np.asarray(samples, dtype=np.float32), rate)


def value(metric, candidate, reference, rate=RATE):
    score = metric().measure(spoken(candidate, rate), spoken(reference, rate))
    assert isinstance(score, Score), score
    assert np.isfinite(score.value)
    return score.value


def noisy(samples, decibels):
    noise = np.random.default_rng(0).normal(size=len(samples))
    scale = np.sqrt((samples @ samples) / (noise @ noise)) * 10 ** (-decibels / 20)
    return samples + scale * noise


def bits(samples, count):
    return np.round(samples * 2 ** (count - 1)) / 2 ** (count - 1)


def low_pass(samples, hertz):
    return signal.sosfiltfilt(signal.butter(8, hertz, fs=RATE, output="sos"), samples)


def clipped(samples, share):
    limit = share * np.abs(samples).max()
    return np.clip(samples, -limit, limit)


# Ladders of damage, the least first; every metric must find each worse than the one before.
LADDERS = {
    "white noise": [lambda x, d=d: noisy(x, d) for d in (60, 50, 40, 30, 20)],
    "fewer bits": [lambda x, b=b: bits(x, b) for b in (12, 10, 8, 6)],
    "clipping": [lambda x, s=s: clipped(x, s) for s in (0.7, 0.5, 0.2)],
    "low-pass": [lambda x, f=f: low_pass(x, f) for f in (6000, 4000, 2000)],
}
# What no ladder can ask for: the melody survives all of these, and the voicing nearly so.
SPECTRAL = (Snr, SpectralCorrelation, LogSpectralDistance, MultiResolutionStft)


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("metric", SPECTRAL)
def test_more_damage_reads_worse(metric, ladder, speech):
    values = [value(metric, damage(speech), speech) for damage in LADDERS[ladder]]
    values.insert(0, value(metric, speech, speech))
    steps = np.diff(values) * (1 if metric.higher_is_better else -1)
    assert (steps < 0).all(), values


@pytest.mark.parametrize("metric", [SiSdr, Pitch])
def test_more_noise_reads_worse(metric, speech):
    values = [value(metric, damage(speech), speech) for damage in LADDERS["white noise"]]
    steps = np.diff(values) * (1 if metric.higher_is_better else -1)
    assert (steps < 0).all(), values


UNUSABLE = {
    "no reference": (lambda x: (spoken(x), None), "no reference"),
    "rates": (lambda x: (spoken(x), spoken(x, 24_000)), "rates differ: 16000 and 24000"),
    "low rate": (lambda x: (spoken(x, 4000), spoken(x, 4000)), "8000 Hz or more"),
    "NaN": (lambda x: (spoken(np.where(x == x.max(), np.nan, x)), spoken(x)), "candidate holds"),
    "infinity": (lambda x: (spoken(x), spoken(np.where(x == x.max(), np.inf, x))), "reference h"),
    "silence": (lambda x: (spoken(0 * x), spoken(x)), "candidate is silent"),
    "constant": (lambda x: (spoken(x), spoken(0 * x + 0.5)), "reference is silent"),
    "short": (lambda x: (spoken(x[:800]), spoken(x[:800])), "candidate lasts 0.050 s"),
    "empty": (lambda x: (spoken([]), spoken([])), "candidate lasts 0.000 s"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
@pytest.mark.parametrize("metric", ALL)
def test_what_means_nothing_is_not_measured(metric, fault):
    make, reason = UNUSABLE[fault]
    candidate, reference = make(voice(seconds=0.9))
    result = metric().measure(candidate, reference)
    assert isinstance(result, NotMeasured), result
    assert reason in result.reason


@pytest.mark.parametrize("metric", [m for m in ALL if m is not SpectralCorrelation])
def test_unequal_lengths_are_not_of_the_same_codes(metric):
    x = voice(seconds=1.0)
    for shorter in (0.99, 0.5):
        for pair in ((x[: int(shorter * len(x))], x), (x, x[: int(shorter * len(x))])):
            result = metric().measure(*map(spoken, pair))
            assert isinstance(result, NotMeasured) and "lengths differ" in result.reason


@pytest.mark.parametrize("metric", [m for m in OWN if m is not SpectralCorrelation])
def test_a_little_longer_counts_as_far_as_both_go(metric):
    x = voice(seconds=1.0)
    wanted = value(metric, x, x)
    assert value(metric, np.append(x, 0.2 * np.ones(150)), x) == pytest.approx(wanted, abs=0.02)


# --- signal to noise ---


def test_snr_is_capped_and_closed_form():
    time = np.arange(RATE) / RATE
    tone, other = np.sin(2 * np.pi * 200 * time), np.cos(2 * np.pi * 300 * time)
    assert value(Snr, tone, tone) == 120
    assert value(Snr, tone + 0.01 * other, tone) == pytest.approx(40, abs=1e-4)
    assert value(Snr, 0.5 * tone, tone) == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert value(Snr, -tone, tone) == pytest.approx(-20 * np.log10(2), abs=1e-4)


def test_si_sdr_ignores_level_offset_and_sign():
    time = np.arange(RATE) / RATE
    tone, other = np.sin(2 * np.pi * 200 * time), np.cos(2 * np.pi * 300 * time)
    for change in (1.0, 0.3, -2.0):
        candidate = change * (tone + 0.01 * other) + 0.1
        assert value(SiSdr, candidate, tone) == pytest.approx(40, abs=1e-3)
    assert value(SiSdr, tone, tone) == 120
    assert value(SiSdr, other, tone) < -100


def test_noise_reads_its_own_level(speech):
    for decibels in (60, 40, 20):
        assert value(Snr, noisy(speech, decibels), speech) == pytest.approx(decibels, abs=0.01)
        assert value(SiSdr, noisy(speech, decibels), speech) == pytest.approx(decibels, abs=0.1)


# --- spectra ---


def test_power_spectra_agree_with_scipy():
    x = voice(seconds=0.5)
    _, _, wanted = signal.spectrogram(
        x, RATE, "hann", 1024, 768, detrend=False, scaling="spectrum", return_onesided=False
    )
    found = power_spectra(x, RATE)
    assert found.shape == (-(-(len(x) - 1024) // 256) + 1, 513)
    np.testing.assert_allclose(found[: wanted.shape[1]], wanted[:513].T, atol=1e-12)


def test_a_tone_reads_its_power():
    time = np.arange(RATE) / RATE
    power = power_spectra(0.5 * np.sin(2 * np.pi * 1000 * time), RATE)
    assert power[10].argmax() == 64
    assert power[10, 64] == pytest.approx(0.5**2 / 4)


def test_a_click_at_the_end_is_in_a_frame():
    x = np.zeros(1025)
    x[-1] = 1.0
    assert power_spectra(x, RATE)[-1].max() > 1e-8


def test_mel_filters_agree_with_a_loop():
    filters = mel_filters(1024, RATE, 80)

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)  # HTK's formula with another logarithm

    top = mel(RATE / 2)
    for band in (0, 7, 40, 79):
        low, middle, high = (700 * np.expm1(top * (band + k) / 81 / 1127) for k in range(3))
        row = []
        for k in range(513):
            f = k * RATE / 1024
            side = (f - low) / (middle - low) if f < middle else (high - f) / (high - middle)
            row.append(max(0.0, side))
        np.testing.assert_allclose(filters[band], np.array(row) / sum(row), atol=2e-6)
    np.testing.assert_allclose(filters.sum(1), 1)


def test_log_mel_is_floored():
    x = voice(seconds=0.5)
    level = log_mel(x, RATE)
    assert level.shape[1] == 80
    assert level.max() - level.min() == pytest.approx(80)
    assert log_mel(x, RATE, floor=1e-3).min() == pytest.approx(-30)


def naive_cost(a, b):
    total = np.full((len(a) + 1, len(b) + 1), np.inf)
    total[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            cheapest = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = np.linalg.norm(a[i] - b[j]) + cheapest
    return total[-1, -1]


@pytest.mark.parametrize(("n", "m"), [(30, 30), (25, 40), (40, 25), (1, 9), (9, 1), (1, 1)])
def test_alignment_costs_as_little_as_any(n, m):
    random = np.random.default_rng(n + m)
    a, b = (random.normal(size=(k, 3)).cumsum(0) for k in (n, m))
    here, there = align(a, b, radius=50)
    assert (here[0], there[0], here[-1], there[-1]) == (0, 0, n - 1, m - 1)
    steps = np.stack([np.diff(here), np.diff(there)])
    assert set(steps.ravel()) <= {0, 1} and (steps.sum(0) > 0).all()
    cost = np.linalg.norm(a[here] - b[there], axis=1).sum()
    assert cost == pytest.approx(naive_cost(a, b))


def test_alignment_undoes_a_known_warp_and_keeps_to_its_band():
    a = np.random.default_rng(0).normal(size=(60, 4)).cumsum(0)
    slow = np.sort(np.concatenate([np.arange(60), np.arange(20, 40)]))
    here, there = align(a, a[slow])
    np.testing.assert_array_equal(here, slow[there])
    held = align(a, np.roll(a, 30, axis=0), radius=5)
    assert np.abs(held[0] - held[1]).max() <= 5


def test_a_frame_needs_its_samples():
    with pytest.raises(InputError, match="one frame"):
        pitch_track(np.zeros(100), RATE)


# --- spectral correlation ---


def test_correlation_without_warping_is_pearsons(monkeypatch):
    x = voice(seconds=1.0)
    monkeypatch.setattr(
        "quaver.quality.metrics.logmel.align", lambda a, b: (np.arange(len(a)),) * 2
    )
    ours, theirs = (mel_power(y.astype(np.float32), RATE) for y in (noisy(x, 30), x))
    ours = ours * theirs.mean() / ours.mean()
    low = 10 * np.log10(theirs.max()) - 80
    ours, theirs = (
        [max(low, 10 * np.log10(cell)) if cell > 0 else low for cell in y.ravel()]
        for y in (ours, theirs)
    )
    wanted = np.corrcoef(ours, theirs)[0, 1]
    assert value(SpectralCorrelation, noisy(x, 30), x) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("gain", [0.1, 0.5, 3.0])
def test_correlation_ignores_level(gain, speech):
    assert value(SpectralCorrelation, gain * speech, speech) == pytest.approx(1, abs=1e-6)


def test_correlation_ignores_tempo_but_not_words():
    x = voice()
    assert value(SpectralCorrelation, voice(tempo=1.03), x) > 0.98
    assert value(SpectralCorrelation, voice(tempo=0.9), x) > 0.95
    assert value(SpectralCorrelation, x[::-1], x) < 0.9
    assert abs(value(SpectralCorrelation, noisy(x, -60), x)) < 0.3


def test_correlation_holds_its_published_levels(speech):
    """What the threshold of 0.95 means: white noise at 40 dB passes, at 20 dB it does not."""
    found = [value(SpectralCorrelation, noisy(speech, d), speech) for d in (60, 50, 40, 20)]
    assert found[0] > 0.999 and found[1] > 0.99 and found[2] > 0.95 > found[3]


def test_correlation_of_a_flat_picture_is_not_measured():
    x = np.zeros(RATE)
    x[0] = 0.5  # where the first window is zero
    result = SpectralCorrelation().measure(spoken(x), spoken(voice(seconds=1.0)))
    assert isinstance(result, NotMeasured) and "everywhere" in result.reason


# --- distances ---


def test_log_spectral_distance_of_a_gain_is_the_gain():
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE)
    for gain in (0.5, 2.0):
        wanted = abs(20 * np.log10(gain))
        assert value(LogSpectralDistance, gain * noise, noise) == pytest.approx(wanted, abs=1e-2)


def test_log_spectral_distance_agrees_with_a_loop():
    x = voice(seconds=0.6).astype(np.float32).astype(np.float64)
    y = noisy(x, 30).astype(np.float32).astype(np.float64)
    ours, theirs = (power_spectra(z, RATE) for z in (y, x))
    floor = theirs.max() / 1e8
    frames = []
    for a, b in zip(ours, theirs, strict=True):
        gaps = [10 * np.log10(max(p, floor) / max(q, floor)) for p, q in zip(a, b, strict=True)]
        frames.append(np.sqrt(np.mean(np.square(gaps))))
    assert value(LogSpectralDistance, y, x) == pytest.approx(np.mean(frames))


def naive_multi_resolution(y, x):
    """By scipy, which centres its frames by mirrored ends too, and scales by the window's sum."""
    parts = []
    for size, hop, width in RESOLUTIONS:
        window = np.pad(signal.get_window("hann", width), (size - width) // 2)
        ours, theirs = (
            np.abs(
                signal.stft(
                    np.pad(z, size // 2, mode="reflect"),
                    window=window,
                    nperseg=size,
                    noverlap=size - hop,
                    boundary=None,
                    padded=False,
                )[2]
            )
            * window.sum()
            for z in (y, x)
        )
        ours, theirs = (np.maximum(z, 1e-4) for z in (ours, theirs))
        parts.append(np.sqrt(((ours - theirs) ** 2).sum() / (theirs**2).sum()))
        parts[-1] += np.mean(np.abs(np.log(ours) - np.log(theirs)))
    return sum(parts) / 3


def test_multi_resolution_stft_agrees_with_scipy():
    x = voice(seconds=0.6).astype(np.float32).astype(np.float64)
    y = noisy(x, 35).astype(np.float32).astype(np.float64)
    assert value(MultiResolutionStft, y, x) == pytest.approx(naive_multi_resolution(y, x))


def test_multi_resolution_stft_of_a_gain():
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE)
    wanted = 0.2 + np.log(1 / 0.8)
    assert value(MultiResolutionStft, 0.8 * noise, noise) == pytest.approx(wanted, abs=1e-3)


# By auraloss 0.4.0, `MultiResolutionSTFTLoss()` and `-SISDRLoss()` (the latter in float64), of one
# second of `voice` in float32.
AURALOSS = {
    "noise at 40 dB": (lambda x: noisy(x, 40), 2.2672174, 40.000541),
    "noise at 20 dB": (lambda x: noisy(x, 20), 3.9104335, 20.003865),
    "low-pass": (lambda x: low_pass(x, 4000), 0.8764608, 20.819360),
    "clipping": (lambda x: clipped(x, 0.2), 1.5605092, 5.154880),
}


@pytest.mark.parametrize("damage", AURALOSS)
def test_auraloss_says_the_same(damage):
    change, distance, ratio = AURALOSS[damage]
    x = voice(seconds=1.0)
    assert value(MultiResolutionStft, change(x), x) == pytest.approx(distance, rel=1e-4)
    assert value(SiSdr, change(x), x) == pytest.approx(ratio, abs=1e-3)


# --- pitch ---


def buzz(hertz, rate=RATE):
    """Harmonics [n] that fall by 1 / k, of a pitch [n] in hertz."""
    phase = 2 * np.pi * np.cumsum(hertz) / rate
    top = int(0.45 * rate / np.max(hertz))
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, top + 1))


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("hertz", [70, 110.5, 233.3, 450])
def test_the_tracker_finds_a_steady_pitch(hertz, rate):
    track = pitch_track(buzz(np.full(rate, hertz), rate), rate)
    assert len(track) > 90
    assert np.abs(1200 * np.log2(track / hertz)).max() < 5


def test_the_tracker_follows_a_glide_without_the_first_harmonic():
    hertz = 110 * 2 ** (np.arange(2 * RATE) / RATE / 2)  # an octave in two seconds
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    track = pitch_track(sum(0.1 * np.sin(k * phase) for k in range(2, 12)), RATE)
    middle = np.arange(len(track)) * 160 + 200 + 133  # of each frame, in samples
    assert np.abs(1200 * np.log2(track / hertz[middle])).max() < 20


def test_the_tracker_finds_no_pitch_in_noise_and_silence():
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE)
    assert (pitch_track(noise, RATE) > 0).mean() < 0.02
    assert not pitch_track(np.zeros(RATE), RATE).any()
    assert not pitch_track(np.full(RATE, 0.3), RATE).any()


@pytest.mark.parametrize("cents", [5, 30, 100, 1200])
def test_a_transposed_melody_reads_its_cents(cents):
    steps = 140 + 20 * np.sin(2 * np.pi * 2 * np.arange(RATE) / RATE)
    found = value(Pitch, buzz(steps * 2 ** (cents / 1200)), buzz(steps))
    assert found == pytest.approx(cents, abs=1.5)


def test_pitch_is_the_same_in_the_same_and_survives_faint_noise(speech):
    assert value(Pitch, speech, speech) == 0
    assert value(PitchVoicing, speech, speech) == 0
    assert value(Pitch, noisy(speech, 40), speech) < 5
    assert value(PitchVoicing, noisy(speech, 40), speech) < 0.02
    assert value(Pitch, 0.1 * speech, speech) < 0.1


def test_voicing_counts_the_frames_that_lost_their_voice():
    tone = buzz(np.full(2 * RATE, 150.0))
    hoarse = tone.copy()
    hoarse[RATE:] = 0.1 * np.random.default_rng(0).normal(size=RATE)
    assert value(PitchVoicing, hoarse, tone) == pytest.approx(0.5, abs=0.03)
    assert value(Pitch, hoarse, tone) < 25  # the frames that hold the seam


def test_without_a_common_voice_there_is_no_pitch_but_a_voicing():
    tone = buzz(np.full(RATE, 150.0))
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE)
    result = Pitch().measure(spoken(noise), spoken(tone))
    assert isinstance(result, NotMeasured) and "voiced in both" in result.reason
    assert value(PitchVoicing, noise, tone) > 0.95
    result = PitchVoicing().measure(spoken(tone), spoken(noise))
    assert isinstance(result, NotMeasured) and "fewer than 10" in result.reason


# --- judges by optional packages ---


@pytest.fixture
def pretend(monkeypatch):
    """Put a module in the place of a package, installed or not."""

    def pretend(name, **content):
        module = types.SimpleNamespace(**content)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr("quaver.quality.metrics.packages.version", lambda package: "1")
        return module

    return pretend


def test_estoi_hands_over_the_reference_first(pretend):
    def judge(clean, degraded, rate, extended):
        assert (rate, extended) == (RATE, True)
        return clean.std() / degraded.std()

    pretend("pystoi", stoi=judge)
    x = voice(seconds=1.0)
    assert value(Estoi, 0.5 * x, x) == pytest.approx(2)


def test_pesq_hands_over_the_reference_first_and_at_its_rate(pretend):
    def judge(rate, clean, degraded, mode):
        assert (rate, mode, len(clean)) == (RATE, "wb", RATE)
        return clean.std() / degraded.std()

    fake = pretend("pesq", pesq=judge, PesqError=RuntimeError)
    x = voice(24_000, seconds=1.0)
    assert value(Pesq, 0.5 * x, x, rate=24_000) == pytest.approx(2)
    fake.pesq = lambda *_: (_ for _ in ()).throw(RuntimeError("no utterances"))
    result = Pesq().measure(spoken(x), spoken(x))
    assert isinstance(result, NotMeasured) and "no utterances" in result.reason
    fake.pesq = lambda *_: float("nan")
    assert isinstance(Pesq().measure(spoken(x), spoken(x)), NotMeasured)


def test_pesq_is_spared_what_it_cannot_take(pretend):
    pretend("pesq")
    long, low = voice(8000, seconds=21.0), voice(8000)
    result = Pesq().measure(spoken(np.repeat(long, 2)), spoken(np.repeat(long, 2)))
    assert isinstance(result, NotMeasured) and "at most" in result.reason
    result = Pesq().measure(spoken(low, 8000), spoken(low, 8000))
    assert isinstance(result, NotMeasured) and "wideband" in result.reason


# ESTOI's highest band ends at 4.3 kHz, and PESQ's model of the ear nearly so.
HEARD = {
    **{name: LADDERS[name] for name in ("white noise", "clipping")},
    "low-pass": [lambda x, f=f: low_pass(x, f) for f in (4000, 2000, 1000)],
}


@pytest.mark.parametrize("ladder", HEARD)
@pytest.mark.parametrize(("metric", "package"), JUDGES)
def test_the_real_judges_hear_damage_in_its_order(metric, package, ladder, tmp_path_factory):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    x = flite(tmp_path_factory)  # PESQ finds no speech in a buzz
    values = [value(metric, x, x), *(value(metric, damage(x), x) for damage in HEARD[ladder])]
    assert (np.diff(values) < 0).all(), values
    assert values[0] == pytest.approx(1.0 if metric is Estoi else 4.64, abs=0.01)
    assert metric().version.startswith(f"{package} ")


def test_estoi_repeats_itself_and_leaves_the_generator_alone():
    x = voice()
    hole = x.copy()
    hole[10_000:18_000] = 0
    np.random.seed(3)
    first, drawn = value(Estoi, hole, x), np.random.random()
    np.random.seed(3)
    assert drawn == np.random.random()
    assert value(Estoi, hole, x) == first < 0.99


def test_estoi_of_a_moment_is_not_measured():
    x = np.zeros(RATE)
    x[4000:8000] = voice(seconds=0.25)
    result = Estoi().measure(spoken(x), spoken(x))
    assert isinstance(result, NotMeasured) and "0.4 s" in result.reason
