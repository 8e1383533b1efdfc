"""Any audio file becomes mono at the asked rate; anything else says what is wrong with it."""

import os
import re
import struct
import wave
from pathlib import Path

import av
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


def write_container(
    path: Path, container: str, codec: str, samples: np.ndarray | None = None
) -> Path:
    """A second of sound, by any of FFmpeg's muxers."""
    samples = sine(1, 24_000) if samples is None else samples
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=24_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 24_000
        for each in av.AudioResampler(format=stream.format, rate=24_000).resample(frame):
            out.mux(stream.encode(each))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("w64", "pcm_s16le"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("ipod", "aac"),  # m4a
        ("mp4", "aac"),
        ("mov", "pcm_s16le"),
        ("matroska", "libopus"),
        ("webm", "libopus"),
        ("adts", "aac"),
        ("aiff", "pcm_s16be"),
        ("caf", "pcm_s16be"),
        ("au", "pcm_s16be"),
    ],
)
def test_every_allowed_container_is_read(tmp_path: Path, container: str, codec: str) -> None:
    samples = read(write_container(tmp_path / "recording", container, codec), 24_000)
    assert len(samples) == pytest.approx(24_000, abs=2_500)
    assert rms_dbfs(samples) == pytest.approx(rms_dbfs(sine(1, 24_000)), abs=0.8)


# Lists, scripts and descriptions, each of which makes FFmpeg open OTHER where it is let
LISTS = {
    "a.ffconcat": "ffconcat version 1.0\nfile 'other.wav'\n",
    "absolute.ffconcat": "ffconcat version 1.0\nfile OTHER\n",
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp3\n#EXT-X-ENDLIST\n",
    "absolute.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nOTHER\n#EXT-X-ENDLIST\n",
    "network.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
    'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>OTHER</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "a.pls": "[playlist]\nFile1=OTHER\nNumberOfEntries=1\n",
    "a.asx": '<asx version="3.0"><entry><ref href="OTHER"/></entry></asx>',
    "a.vpy": "import vapoursynth\n",
    "a.imf": '<?xml version="1.0"?><CompositionPlaylist/>',
    "a.txt": "file OTHER\n",
    "a.ppm": "P6 2 2 255\n............",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("ending", ["", ".wav", ".mp3"])
def test_no_file_makes_another_be_read(tmp_path: Path, name: str, ending: str) -> None:
    for other in ("other.wav", "other.mp3"):
        save(tmp_path / other, sine(1, 24_000), 24_000)
    path = tmp_path / f"{name}{ending}"
    path.write_text(LISTS[name].replace("OTHER", str(tmp_path / "other.mp3")))
    with pytest.raises(InputError, match=f"{re.escape(path.name)} .*; give wav, .*m4a"):
        read(path, 24_000)


def with_reference(movie: bytes, target: Path) -> bytes:
    """The movie, whose samples are said to lie in the file `target`: a Macintosh alias."""
    name = str(target).encode()
    name += b"\0" * (len(name) % 2)
    alias = bytes(10 + 28 + 12 + 64 + 16 + 4 + 16) + struct.pack(">HH", 2, len(name)) + name
    alias += struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    own = b"\0\0\0\x0curl \0\0\0\1"  # a reference with the flag: in this file
    assert movie.count(own) == 1 and movie.index(b"mdat") < movie.index(b"moov")
    for atom in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = movie.rindex(atom, 0, movie.index(own)) - 4
        (size,) = struct.unpack(">I", movie[place : place + 4])
        grown = struct.pack(">I", size + len(entry) - len(own))
        movie = movie[:place] + grown + movie[place + 4 :]
    return movie.replace(own, entry)


def test_a_movie_may_not_refer_to_another_file(tmp_path: Path) -> None:
    silence = np.zeros(24_000, np.float32)
    other = write_container(tmp_path / "other.mov", "mov", "pcm_s16le")
    path = write_container(tmp_path / "a.mov", "mov", "pcm_s16le", silence)
    path.write_bytes(with_reference(path.read_bytes(), other))
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as lax:
        heard = np.concatenate([each.to_ndarray()[0] for each in lax.decode(audio=0)])
    assert np.abs(heard.astype(int)).max() > 10_000  # where it is let, it reads the other file
    with pytest.raises(InputError, match="holds no samples"):
        read(path, 24_000)


def test_a_film_without_sound_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame(16, 16, "yuv420p")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match="has no audio stream; give an audio file"):
        read(path, 24_000)


def test_names_that_are_none_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File name too long; give"):
        read(tmp_path / ("a" * 300), 24_000)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or a device; give"):
        read(tmp_path / "pipe", 24_000)


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
