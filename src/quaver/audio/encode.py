"""Write audio while it is made, to a file that appears whole or to a pipe that is heard at once.

A file is written under a temporary name beside its target and renamed when it is complete, so a
crash, a full disk or a cancelled request never leaves half a file under the name that was asked
for. A pipe gets every packet as soon as the encoder gives it: headers then carry no lengths, and
nothing is sent before the first samples.

WAV and pcm are written by hand, in 16 bits; PyAV, whose wheels hold the encoders, writes the rest.
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

import numpy as np

from quaver.audio.resample import Resampler
from quaver.core.errors import InputError
from quaver.core.files import hidden_name, settle, sweep

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

UNKNOWN_LENGTH = 0xFFFFFFFF  # what players take as "until the stream ends"
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000  # Hz
PCM_RATE = 24_000  # Hz, which clients of OpenAI's API assume
G711_RATE = 8_000  # Hz


@dataclass(frozen=True, slots=True)
class _Codec:
    container: str
    encoder: str
    sample_format: str
    bit_rate: int | None = None  # bit/s for one channel; None is lossless
    rates: tuple[int, ...] = ()  # Hz that the encoder takes; empty is any
    pipe_options: Mapping[str, str] = field(default_factory=dict)


_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
# Ogg gathers a second of packets in a page unless told otherwise (in microseconds).
_SHORT_PAGES = {"page_duration": "20000"}
_CODECS = {
    "mp3": _Codec("mp3", "libmp3lame", "fltp", 96_000, _MPEG_RATES, {"write_xing": "0"}),
    "opus": _Codec("ogg", "libopus", "flt", 64_000, _OPUS_RATES, _SHORT_PAGES),
    "flac": _Codec("flac", "flac", "s16"),
    "aac": _Codec("adts", "aac", "fltp", 96_000, _MPEG_RATES),
    "g711_ulaw": _Codec("mulaw", "pcm_mulaw", "s16", rates=(G711_RATE,)),
    "g711_alaw": _Codec("alaw", "pcm_alaw", "s16", rates=(G711_RATE,)),
}
HEADERLESS = ("pcm", "g711_ulaw", "g711_alaw")  # nothing in the bytes tells their rate
FORMATS = ("wav", *(name for name in _CODECS if name not in HEADERLESS), *HEADERLESS)
_ENDINGS = {name.removeprefix("g711_"): name for name in FORMATS}


def format_of(path: str | Path) -> str:
    """The format that the ending of `path` names. Raises InputError for any other ending."""
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in _ENDINGS:
        given = "." + ending if ending else "nothing"
        raise InputError(f"{path} ends in {given}; allowed are {', '.join(_ENDINGS)}")
    return _ENDINGS[ending]


def ending_of(format: str) -> str:
    """The ending of a file name, without its dot, that names `format`."""
    return next(ending for ending, name in _ENDINGS.items() if name == format)


def check_rate(format: str, rate: int | None) -> None:
    """Raise InputError for a rate in Hz that `format` cannot have; None is always allowed."""
    if rate is None:
        return
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        allowed = f"{LOWEST_RATE} to {HIGHEST_RATE}"
        raise InputError(f"the sample rate is {rate} Hz; allowed is {allowed}")
    rates = _CODECS[format].rates if format in _CODECS else ()
    if rates and rate not in rates:
        allowed = ", ".join(map(str, rates))
        raise InputError(f"the sample rate is {rate} Hz; {format} has {allowed}")


def output_rate(format: str, sample_rate: int, rate: int | None = None) -> int:
    """Rate in Hz that `format` is written at for samples at `sample_rate`.

    `rate` is what was asked for. By default pcm has 24,000 Hz and every other format the rate of
    the samples, or where its encoder has not that one, the next above. Raises InputError.
    """
    check_rate(format, rate)
    if rate is not None:
        return rate
    if format == "pcm":
        return PCM_RATE
    rates = _CODECS[format].rates if format in _CODECS else ()
    return min(
        (each for each in rates if each >= sample_rate), default=max(rates, default=sample_rate)
    )


def save(path: str | Path, samples: NDArray[np.float32], sample_rate: int) -> Path:
    """Write samples [n] to `path` in the format that its ending names. Returns the path."""
    path = Path(path)
    with StreamWriter(path, sample_rate, format_of(path)) as writer:
        writer.write(samples)
    return path


class StreamWriter:
    """A context manager that encodes mono samples as they arrive.

    Samples have `sample_rate`; what is written has `rate`, see `output_rate`.

    `target` is a path, or a binary file open for writing, which is never sought in or closed.
    Leaving the block normally completes the file; leaving it by an exception, or `abort()`,
    removes it. Whether the target can be written is found out on construction, before the caller
    spends a minute on loading a model. A reader that went away raises BrokenPipeError.
    """

    def __init__(
        self, target: Path | BinaryIO, sample_rate: int, format: str, rate: int | None = None
    ) -> None:
        check_format(format)
        self.rate = output_rate(format, sample_rate, rate)
        self._resampler = None if self.rate == sample_rate else Resampler(sample_rate, self.rate)
        self._sink = _sink_for(target)
        self._done = False
        with ExitStack() as undo:
            undo.callback(self._sink.discard)
            self._encoder = _encoder_for(format, self._sink, self.rate)
            undo.pop_all()

    def write(self, samples: NDArray[np.float32]) -> None:
        """Encode samples [n], clipped to -1..1. Some may stay in the encoder until later."""
        if self._done:
            raise ValueError("the writer is closed")
        samples = np.asarray(samples, dtype=np.float32)
        self._encode(samples if self._resampler is None else self._resampler.push(samples))

    def _encode(self, samples: NDArray[np.float32]) -> None:
        if len(samples):
            self._encoder.write(samples)
            self._sink.flush()

    def close(self) -> None:
        """Complete the stream and put the file under its name. A second call does nothing."""
        if self._done:
            return
        with ExitStack() as undo:
            undo.callback(self.abort)
            if self._resampler is not None:
                self._encode(self._resampler.finish())
            self._encoder.close()
            self._sink.commit()
            undo.pop_all()
        self._done = True

    def abort(self) -> None:
        """Remove what was written of a file; a pipe just ends. After `close` this does nothing."""
        if not self._done:
            self._done = True
            self._sink.discard()
            self._encoder.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples [n] as little-endian 16 bits, rounded and clipped.

    The scale is 32768, which is what decoders divide by, so 16-bit audio survives a round trip.
    """
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")


class _Pipe:
    """Where encoded bytes go. After `discard` it is deaf: a dying encoder may still write."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._deaf = False

    def write(self, data: bytes) -> int:
        if not self._deaf:
            self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return offset if self._deaf else self._file.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._deaf else self._file.tell()

    def commit(self) -> None:
        self._file.flush()

    def discard(self) -> None:
        self._deaf = True


class _NewFile(_Pipe):
    """A file that has another name until it is complete and on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()  # a link keeps pointing where it does
        sweep(self._path.parent)
        self._part = hidden_name(self._path)
        super().__init__(self._part.open("xb"))

    def flush(self) -> None:
        """Nobody reads a file that has no name yet, so its buffer may fill."""

    def seekable(self) -> bool:
        return True

    def commit(self) -> None:
        self._file.close()
        settle(self._part, self._path)

    def discard(self) -> None:
        super().discard()
        self._part.unlink(missing_ok=True)
        self._file.close()


class _Device(_Pipe):
    """A device or named pipe, such as /dev/null: written in place, as a rename would remove it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("wb"))

    def commit(self) -> None:
        self._file.close()

    def discard(self) -> None:
        super().discard()
        self._file.close()


def _sink_for(target: Path | BinaryIO) -> _Pipe:
    if not isinstance(target, Path):
        return _Pipe(target)
    try:
        if target.is_dir():
            example = target / "quaver.wav"
            raise InputError(f"{target} is a folder; name a file in it, such as {example}")
        if not target.parent.is_dir():
            raise InputError(
                f"the folder {target.parent} does not exist; create it or choose another"
            )
        if target.exists() and not target.is_file():
            return _Device(target)
        return _NewFile(target)
    except OSError as error:
        raise InputError(
            f"cannot write {str(target)[:200]} ({error.strerror}); "
            "choose another name, or a folder that you may write to"
        ) from error


class _Encoder(Protocol):
    def write(self, samples: NDArray[np.float32]) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None:
        """Give up what it holds, whose end nobody wants."""


def _encoder_for(format: str, sink: _Pipe, sample_rate: int) -> _Encoder:
    if format == "wav":
        return _Wav(sink, sample_rate)
    if format == "pcm":
        return _Raw(sink)
    return _Compressed(_CODECS[format], sink, sample_rate)


class _Raw:
    def __init__(self, sink: _Pipe) -> None:
        self._sink = sink

    def write(self, samples: NDArray[np.float32]) -> None:
        self._sink.write(pcm16(samples).tobytes())

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Wav:
    def __init__(self, sink: _Pipe, sample_rate: int) -> None:
        self._sink = sink
        self._sample_rate = sample_rate
        self._bytes = 0

    def write(self, samples: NDArray[np.float32]) -> None:
        header = b"" if self._bytes else self._header(UNKNOWN_LENGTH)
        data = pcm16(samples).tobytes()
        self._sink.write(header + data)
        self._bytes += len(data)

    def close(self) -> None:
        if self._sink.seekable():
            self._sink.seek(0)
        if self._sink.seekable() or not self._bytes:
            self._sink.write(self._header(self._bytes))

    def abandon(self) -> None:
        pass

    def _header(self, data_bytes: int) -> bytes:
        """RIFF's lengths have 32 bits; a longer file (a day of speech) says that it is unknown."""
        data_bytes = min(data_bytes, UNKNOWN_LENGTH)
        riff_bytes = min(data_bytes + WAV_HEADER.size - 8, UNKNOWN_LENGTH)
        rate = self._sample_rate
        return WAV_HEADER.pack(
            *(b"RIFF", riff_bytes, b"WAVE", b"fmt ", 16),
            *(1, 1, rate, 2 * rate, 2, 16),  # PCM, mono, Hz, bytes/s, bytes a sample, bits
            *(b"data", data_bytes),
        )


class _Compressed:
    """An encoder and a container of PyAV."""

    def __init__(self, codec: _Codec, sink: _Pipe, sample_rate: int) -> None:
        import av

        options = {} if sink.seekable() else {"flush_packets": "1", **codec.pipe_options}
        self._container = av.open(sink, "w", format=codec.container, options=options)
        self._sample_rate = sample_rate
        stream = self._container.add_stream(codec.encoder, rate=sample_rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.format = codec.sample_format
        if codec.bit_rate:
            stream.bit_rate = codec.bit_rate
        self._stream = stream

    def write(self, samples: NDArray[np.float32]) -> None:
        import av

        if self._stream.format.name == "s16":
            frame = av.AudioFrame.from_ndarray(pcm16(samples)[None], format="s16", layout="mono")
        else:
            clipped = np.clip(samples, -1, 1)[None]
            frame = av.AudioFrame.from_ndarray(clipped, format="flt", layout="mono")
        frame.sample_rate = self._sample_rate
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.start_encoding()  # without samples there is still a header to write
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        import av

        # else threads and buffers, megabytes of them, stay until the garbage collector comes
        with suppress(av.error.FFmpegError):  # the sink had failed before
            self._container.close()


def check_format(format: str) -> None:
    """Raise InputError for what is no format."""
    if format not in FORMATS:
        raise InputError(f"the format is {format!r}; allowed are {', '.join(FORMATS)}")
