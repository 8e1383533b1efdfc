"""Every format decodes to what went in; files appear whole or not at all; pipes are heard live."""

import gc
import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from needs import needs_linux
from quaver.audio.encode import (
    FORMATS,
    HEADERLESS,
    StreamWriter,
    ending_of,
    format_of,
    pcm16,
    save,
)
from quaver.core.errors import InputError

RATE = 24_000
CONTAINERS = [name for name in FORMATS if name not in HEADERLESS]


def tone(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 330 * time) * np.sin(2 * np.pi * 2 * time)).astype(np.float32)


def decoded(source: Path | io.BytesIO, rate: int) -> np.ndarray:
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The best over shifts: lossy codecs begin with some silence."""
    size = 1 << (len(a) + len(b)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(a, size).conj() * np.fft.rfft(b, size))
    return float(cross.max() / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("rate", [22_050, 24_000, 48_000])
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_decodes_to_what_was_saved(tmp_path: Path, name: str, rate: int) -> None:
    samples = tone(1.0, rate)
    path = save(tmp_path / f"voice.{name}", samples, rate)
    result = decoded(path, rate)
    if name in ("wav", "flac"):
        assert np.array_equal(result, pcm16(samples) / np.float32(32768))
    else:
        assert len(result) == pytest.approx(len(samples), abs=0.1 * rate)
        assert correlation(samples, result) > 0.99
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_pipe_gets_the_same_sound_while_it_is_made(name: str) -> None:
    pipe = Unseekable()
    samples = tone(2.0)
    with StreamWriter(pipe, RATE, name) as writer:
        assert not pipe.data
        sizes = []
        for chunk in np.split(samples, 10):
            writer.write(chunk)
            sizes.append(len(pipe.data))
    assert sizes == sorted(set(sizes)), "some chunk was not passed on at once"
    assert pipe.flushes >= 10
    result = decoded(io.BytesIO(pipe.data), RATE)
    assert len(result) == pytest.approx(len(samples), abs=0.1 * RATE)
    assert correlation(samples, result) > 0.99


def test_chunks_do_not_change_the_samples(tmp_path: Path) -> None:
    samples = tone()
    with StreamWriter(tmp_path / "a.flac", RATE, "flac") as writer:
        for chunk in np.array_split(samples, 77):
            writer.write(chunk)
        writer.write(samples[:0])
    assert np.array_equal(decoded(tmp_path / "a.flac", RATE) * 32768, pcm16(samples))


def test_wav_headers_tell_true_lengths_in_files_and_none_in_pipes(tmp_path: Path) -> None:
    data = save(tmp_path / "a.wav", tone(), RATE).read_bytes()
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    assert struct.unpack_from("<I", data, 40)[0] == len(data) - 44 == 2 * RATE
    pipe = Unseekable()
    with StreamWriter(pipe, RATE, "wav") as writer:
        writer.write(tone())
    assert struct.unpack_from("<I", pipe.data, 4)[0] == 0xFFFFFFFF
    assert struct.unpack_from("<I", pipe.data, 40)[0] == 0xFFFFFFFF
    assert pipe.data[44:] == data[44:]


def test_sixteen_bits_are_rounded_and_clipped() -> None:
    half = 0.5 / 32768
    given = np.array([0, 0.9 * half, 1.1 * half, -1.1 * half, 1, 1.5, -1, -1.5], dtype=np.float32)
    assert pcm16(given).tolist() == [0, 0, 1, -1, 32767, 32767, -32768, -32768]


@pytest.mark.parametrize("name", CONTAINERS)
def test_too_loud_is_clipped_and_does_not_wrap(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / f"a.{name}", 5 * tone(), RATE)
    assert correlation(np.clip(5 * tone(), -1, 1), decoded(path, RATE)) > 0.98


@pytest.mark.parametrize("name", FORMATS)
def test_no_samples_make_a_file_all_the_same(tmp_path: Path, name: str) -> None:
    assert save(tmp_path / f"a.{ending_of(name)}", tone(0), RATE).is_file()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", FORMATS)
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), StreamWriter(path, RATE, name) as writer:
        writer.write(tone())
        raise ZeroDivisionError
    with StreamWriter(path, RATE, name) as writer:
        writer.write(tone())
        writer.abort()
        with pytest.raises(ValueError, match="closed"):
            writer.write(tone())
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / "a.mp3", tone(), RATE)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="is a folder"):
        StreamWriter(tmp_path, RATE, "wav")
    with pytest.raises(InputError, match="none does not exist; create it"):
        StreamWriter(tmp_path / "none" / "a.wav", RATE, "wav")
    with pytest.raises(InputError, match=r"allowed are wav, mp3, opus, flac, aac, pcm, g711"):
        StreamWriter(tmp_path / "a.wav", RATE, "tape")

    opened = Path.open

    def refuse(path: Path, mode: str = "r", *rest: object, **options: object) -> object:
        if "x" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"cannot write .* \(Permission denied\)"):
        StreamWriter(tmp_path / "a.wav", RATE, "wav")


def test_a_link_is_written_through_and_a_device_in_place(tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    save(tmp_path / "link.wav", tone(), RATE)
    assert (tmp_path / "link.wav").is_symlink()
    assert (tmp_path / "real.wav").stat().st_size == 44 + 2 * RATE
    with StreamWriter(Path("/dev/null"), RATE, "mp3") as writer:
        writer.write(tone())
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_that_went_away_is_a_broken_pipe(name: str) -> None:
    reader, end = os.pipe()
    os.close(reader)
    with (
        os.fdopen(end, "wb", buffering=0) as pipe,
        pytest.raises(BrokenPipeError),
        StreamWriter(pipe, RATE, name) as writer,
    ):
        for _ in range(4):
            writer.write(tone())


def test_the_first_sound_comes_through_a_real_pipe_before_the_second_is_made() -> None:
    reader, end = os.pipe()
    heard = threading.Event()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(end, "wb") as pipe:
        listener = threading.Thread(target=lambda: source.read(45) and heard.set())
        listener.start()
        with StreamWriter(pipe, RATE, "wav") as writer:
            writer.write(tone(0.01))
            assert heard.wait(60)
        listener.join()


@pytest.mark.parametrize(
    ("path", "expected"), [("a.wav", "wav"), ("b/c.MP3", "mp3"), ("a.b.opus", "opus")]
)
def test_the_ending_names_the_format(path: str, expected: str) -> None:
    assert format_of(path) == expected


@pytest.mark.parametrize(("path", "given"), [("a.ogg", r"\.ogg"), ("a", "nothing")])
def test_another_ending_says_what_is_allowed(path: str, given: str) -> None:
    with pytest.raises(
        InputError, match=f"ends in {given}; allowed are wav, mp3, opus, flac, aac, pcm, ulaw, alaw"
    ):
        format_of(path)


def test_importing_the_room_does_not_load_an_encoder() -> None:
    code = "import sys, quaver.audio.encode, quaver.audio.decode; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Unseekable(io.RawIOBase):
    def __init__(self) -> None:
        self.data = b""
        self.flushes = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += bytes(data)
        return len(data)

    def flush(self) -> None:
        self.flushes += 1


@needs_linux
@pytest.mark.parametrize("name", FORMATS)
def test_an_encoder_that_is_given_up_leaves_nothing(name):
    def give_up() -> int:
        writer = StreamWriter(io.BytesIO(), 24000, name)
        writer.write(np.zeros(2048, np.float32))
        writer.abort()
        return len([*Path("/proc/self/task").iterdir()])

    gc.disable()  # which would come much later
    try:
        counts = [give_up() for _ in range(30)]
    finally:
        gc.enable()
    assert max(counts) - min(counts) < 10
