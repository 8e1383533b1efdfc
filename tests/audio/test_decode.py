"""Any audio file becomes mono at the asked rate; anything else says what is wrong with it."""

import wave
from pathlib import Path

import numpy as np
import pytest

from quaver.audio.decode import read
from quaver.audio.encode import save
from quaver.audio.levels import first_audible, last_audible, rms_dbfs
from quaver.core.errors import InputError


def sine(seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype("f4")


def write_wav(path: Path, channels: list[np.ndarray], rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), 2, rate, 0, "NONE", ""))
        file.writeframes((np.stack(channels, axis=1) * 32767).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("name", ["wav", "mp3", "opus", "flac", "aac"])
def test_every_format_is_read_at_the_asked_rate(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / f"a.{name}", sine(1, 24_000), 24_000)
    samples = read(path, 16_000)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(16_000, abs=1_600)
    assert np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(440 * len(samples) / 16_000, 0.01)
    assert rms_dbfs(samples[4_000:12_000]) == pytest.approx(rms_dbfs(sine(1, 24_000)), abs=0.5)


def test_sixteen_bits_come_back_exactly(tmp_path: Path) -> None:
    samples = np.round(sine(1, 24_000) * 32768) / np.float32(32768)
    assert np.array_equal(read(save(tmp_path / "a.wav", samples, 24_000), 24_000), samples)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = sine(0.5, 24_000)
    both = read(write_wav(tmp_path / "both.wav", [left, left], 24_000), 24_000)
    assert np.allclose(both, left, atol=1e-4)
    one = read(write_wav(tmp_path / "one.wav", [left, 0 * left], 24_000), 24_000)
    assert np.allclose(one, left / 2, atol=1e-4)


def test_a_name_with_a_colon_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("http:voice.wav", sine(0.1, 24_000), 24_000)
    assert len(read("http:voice.wav", 24_000)) == 2_400


def test_what_is_missing_or_not_audio_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.wav does not exist; give"):
        read(tmp_path / "none.wav", 24_000)
    with pytest.raises(InputError, match="is a folder; give"):
        read(tmp_path, 24_000)
    for content in (b"", b"no sound in here\n" * 100, b"RIFF\x00\x00\x00\x00WAVEfmt "):
        (tmp_path / "bad.wav").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.wav .*; give"):
            read(tmp_path / "bad.wav", 24_000)


def test_a_picture_has_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    with pytest.raises(InputError, match="has no audio stream; give an audio file"):
        read(tmp_path / "a.ppm", 24_000)


def test_a_playlist_may_not_reach_the_network(tmp_path: Path) -> None:
    (tmp_path / "a.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(InputError, match=r"a\.m3u8"):
        read(tmp_path / "a.m3u8", 24_000)


def test_no_samples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        read(write_wav(tmp_path / "empty.wav", [sine(0, 24_000)], 24_000), 24_000)


def test_the_longest_allowed_is_read_and_no_longer(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", sine(1, 24_000), 24_000)
    assert len(read(path, 24_000, max_seconds=1)) == 24_000
    with pytest.raises(InputError, match=r"longer than 0\.9 s, the most allowed; cut it"):
        read(path, 24_000, max_seconds=0.9)


def test_levels() -> None:
    assert rms_dbfs(np.ones(10, dtype=np.float32)) == 0
    assert rms_dbfs(sine(1, 24_000)) == pytest.approx(-9.03, abs=0.01)
    assert rms_dbfs(np.zeros(10, dtype=np.float32)) == rms_dbfs(sine(0, 24_000)) == -np.inf
    quiet = np.array([0.003, 0.0032, -0.5, 0.0], dtype=np.float32)
    assert (first_audible(quiet), last_audible(quiet)) == (1, 2)
    assert first_audible(quiet[:1]) is last_audible(quiet[:1]) is None
