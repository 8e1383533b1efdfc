"""Resampled streams: right samples, right lengths, no seams, and G.711 as the ITU defines it."""

import io
import math

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly

from quaver.audio.encode import (
    FORMATS,
    HIGHEST_RATE,
    LOWEST_RATE,
    StreamWriter,
    check_rate,
    ending_of,
    format_of,
    output_rate,
    pcm16,
)
from quaver.audio.resample import Resampler
from quaver.core.errors import InputError

RATES = [(24000, 8000), (24000, 16000), (24000, 48000), (22050, 24000), (44100, 24000)]
PAIRS = [*RATES, (24000, 11025), (24000, 22050), (24000, 44100), (48000, 8000), (24000, 8001)]
LIBRARY = {"mp3": "libmp3lame", "opus": "libopus", "aac": "aac"}


def resampled(samples: np.ndarray, pair: tuple[int, int], sizes: list[int]) -> np.ndarray:
    """Through chunks of these sizes, over and over."""
    resampler, parts, at = Resampler(*pair), [], 0
    while at < len(samples):
        size = sizes[len(parts) % len(sizes)]
        parts.append(resampler.push(samples[at : at + size]))
        at += size
    return np.concatenate([*parts, resampler.finish()])


def tone(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def middle(samples: np.ndarray) -> np.ndarray:
    return samples[len(samples) // 4 : -len(samples) // 4]


def decibels(samples: np.ndarray) -> float:
    """Of a tone of `tone`'s level."""
    return 10 * math.log10(2 * np.mean(np.square(samples, dtype=float)) / 0.25 + 1e-20)


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=20),
    st.integers(0, 3000),
    st.sampled_from(PAIRS),
)
def test_chunks_of_any_size_give_the_same_samples(sizes, count, pair):
    samples = np.random.default_rng(count).uniform(-1, 1, count).astype(np.float32)
    whole = resampled(samples, pair, [max(count, 1)])
    assert len(whole) == round(count * pair[1] / pair[0])
    assert np.array_equal(resampled(samples, pair, sizes), whole)


@pytest.mark.parametrize("pair", PAIRS)
def test_scipy_gives_the_same_speech_band(pair):
    """Noise that ends at 0.7 of the lower Nyquist frequency, where both filters are flat."""
    source, target = pair
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(source // 2))
    spectrum[int(0.7 * min(pair) / 2 / 2) :] = 0
    samples = np.fft.irfft(spectrum, source // 2)
    samples = (0.2 * samples / np.abs(samples).max()).astype(np.float32)
    common = math.gcd(*pair)
    up, down = target // common, source // common
    expected = resample_poly(samples.astype(float), up, down, window=("kaiser", 10.0))
    found = resampled(samples, pair, [2048])
    expected = expected[: len(found)]
    error = np.abs(found[: len(expected)] - expected)
    assert middle(error).max() < 2e-4
    assert error.max() < 0.02  # the edges, where both filters see silence


@pytest.mark.parametrize("pair", PAIRS)
def test_the_band_is_flat_and_nothing_folds_back(pair):
    nyquist = min(pair) / 2
    for part in (0.02, 0.3, 0.6, 0.85):
        level = decibels(middle(resampled(tone(part * nyquist, pair[0]), pair, [2048])))
        assert abs(level) < 0.05, part
    for part in (1.1, 1.3, 1.7):
        if part * nyquist < 0.49 * pair[0]:
            level = decibels(middle(resampled(tone(part * nyquist, pair[0]), pair, [2048])))
            assert level < -80, part


@pytest.mark.parametrize("pair", PAIRS)
def test_no_more_is_held_back_than_the_filter_needs(pair):
    resampler, pushed = Resampler(*pair), 0
    while not len(resampler.push(np.ones(8, np.float32))):
        pushed += 8
    assert pushed / pair[0] <= resampler.delay + 8 / pair[0]
    assert resampler.delay <= 0.004


def test_a_click_stays_where_it_was():
    for pair in RATES:
        samples = np.zeros(pair[0], np.float32)
        samples[pair[0] // 2] = 1
        assert abs(int(resampled(samples, pair, [480]).argmax()) - pair[1] // 2) <= 1


def test_nothing_stays_nothing():
    assert len(Resampler(24000, 8000).finish()) == 0
    assert len(resampled(np.ones(1, np.float32), (24000, 8000), [1])) == 0


@pytest.mark.parametrize("name", LIBRARY)
def test_the_rates_of_an_encoder_are_those_that_it_has(name):
    has = {
        rate
        for rate in av.Codec(LIBRARY[name], "w").audio_rates or []
        if LOWEST_RATE <= rate <= HIGHEST_RATE
    }
    for rate in range(LOWEST_RATE, HIGHEST_RATE + 1, 25):
        if rate in has:
            check_rate(name, rate)
        else:
            with pytest.raises(InputError, match=rf"is {rate} Hz; {name} has 8000, "):
                check_rate(name, rate)


@pytest.mark.parametrize(
    ("format", "model", "asked", "expected"),
    [
        *(("pcm", 22050, None, 24000), ("pcm", 24000, None, 24000), ("pcm", 24000, 16000, 16000)),
        *(("wav", 22050, None, 22050), ("wav", 24000, 44100, 44100), ("flac", 22050, None, 22050)),
        *(("opus", 22050, None, 24000), ("opus", 44100, None, 48000), ("opus", 24000, 8000, 8000)),
        *(("mp3", 22050, None, 22050), ("mp3", 23000, None, 24000), ("mp3", 96000, None, 48000)),
        *(("g711_ulaw", 24000, None, 8000), ("g711_alaw", 24000, 8000, 8000)),
    ],
)
def test_a_format_has_its_rate(format, model, asked, expected):
    assert output_rate(format, model, asked) == expected


@pytest.mark.parametrize(
    ("format", "rate", "allowed"),
    [
        *(("pcm", 7999, "8000 to 48000"), ("wav", 48001, "8000 to 48000")),
        *(("wav", 0, "8000 to 48000"), ("flac", -1, "8000 to 48000")),
        *(("g711_ulaw", 16000, "g711_ulaw has 8000"), ("opus", 22050, "opus has 8000, 12000")),
    ],
)
def test_a_rate_that_a_format_has_not_is_told(format, rate, allowed):
    with pytest.raises(InputError, match=allowed):
        output_rate(format, 24000, rate)


def itu_alaw_value(code: int) -> int:
    """What an A-law code stands for, in 16 bits."""
    code ^= 0x55
    segment, step = code >> 4 & 7, (code & 15) << 4
    value = step + 8 if not segment else (step + 0x108) << (segment - 1)
    return value if code & 0x80 else -value


def itu_ulaw_value(code: int) -> int:
    """What a mu-law code stands for, in 16 bits."""
    code = ~code & 0xFF
    value = ((((code & 15) << 3) + 0x84) << (code >> 4 & 7)) - 0x84
    return -value if code & 0x80 else value


VALUES = {"g711_ulaw": itu_ulaw_value, "g711_alaw": itu_alaw_value}


@pytest.mark.parametrize("name", VALUES)
def test_g711_is_the_nearest_code_of_the_standard(name):
    samples = np.arange(-32768, 32768, 7)
    sink = io.BytesIO()
    with StreamWriter(sink, 8000, name) as writer:
        for part in np.array_split(samples, 9):
            writer.write((part / 32768).astype(np.float32))
    codes = np.frombuffer(sink.getvalue(), np.uint8)
    assert len(codes) == len(samples)
    table = np.array([VALUES[name](code) for code in range(256)])
    nearest = np.abs(table[None] - samples[:, None]).min(axis=1)
    found = np.abs(table[codes] - samples)
    assert (found - nearest).max() <= 8  # G.711 reads 13 or 14 of the 16 bits
    assert table[codes].max() > 32000 and table[codes].min() < -32000


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_written_at_another_rate(format):
    asked = 8000
    sink = io.BytesIO()
    samples = tone(400, 24000, 1.0)
    with StreamWriter(sink, 24000, format, asked) as writer:
        assert writer.rate == asked
        for part in np.array_split(samples, 13):
            writer.write(part)
    raw = {"pcm": "s16le", "g711_ulaw": "mulaw", "g711_alaw": "alaw"}.get(format)
    options = {"sample_rate": str(asked)} if raw else {}
    with av.open(io.BytesIO(sink.getvalue()), format=raw, options=options) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=8000)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    found = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    assert len(found) == pytest.approx(8000, abs=1600)
    if format in ("wav", "pcm", "flac", "g711_ulaw", "g711_alaw"):
        assert len(found) == 8000
    assert abs(decibels(middle(found))) < 1
    power = np.abs(np.fft.rfft(middle(found)))
    assert power.argmax() * 8000 / len(middle(found)) == pytest.approx(400, abs=5)


def test_the_models_own_rate_passes_unchanged():
    samples = np.random.default_rng(2).uniform(-1, 1, 5000).astype(np.float32)
    sink = io.BytesIO()
    with StreamWriter(sink, 24000, "pcm", 24000) as writer:
        for part in np.array_split(samples, 7):
            writer.write(part)
    assert sink.getvalue() == pcm16(samples).tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_an_ending_names_its_format(format):
    assert format_of(f"a.{ending_of(format)}") == format
