"""Samples of 16 bits, as an engine sends them, to bytes of the format that a client wants."""

from __future__ import annotations

import io
import struct

from quaver.audio.encode import WAV_HEADER, StreamWriter
from quaver.audio.levels import from_pcm16
from quaver.audio.tempo import Tempo

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm;rate={rate}",
    "g711_ulaw": "audio/PCMU;rate={rate}",
    "g711_alaw": "audio/PCMA;rate={rate}",
}
LIGHT = ("pcm", "wav")  # so little work that another thread would be more


def media_type(format: str, sample_rate: int) -> str:
    return MEDIA_TYPES[format].format(rate=sample_rate)


class Sound:
    """The bytes of one stream in its format, speed and rate.

    It is not for two threads at once. Close it, whole or not.
    """

    def __init__(self, format: str, sample_rate: int, speed: float, rate: int | None) -> None:
        """`sample_rate` is the model's; `rate` what was asked for. InputError for a wrong one."""
        self._tempo = None if speed == 1 else Tempo(sample_rate, speed)
        self._sink = io.BytesIO()
        self._writer = StreamWriter(self._sink, sample_rate, format, rate)
        same = speed == 1 and self.rate == sample_rate
        self.heavy = not same or format not in LIGHT
        self._unchanged = same and format == "pcm"

    @property
    def rate(self) -> int:
        """Of the bytes, in Hz."""
        return self._writer.rate

    def push(self, pcm: bytes) -> bytes:
        """What is ready of it, perhaps nothing."""
        if self._unchanged:
            return pcm
        samples = from_pcm16(pcm)
        self._writer.write(samples if self._tempo is None else self._tempo.push(samples))
        return self._take()

    def finish(self) -> bytes:
        """The rest."""
        if self._tempo is not None:
            self._writer.write(self._tempo.finish())
        self._writer.close()
        return self._take()

    def close(self) -> None:
        self._writer.abort()

    def _take(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data


def with_lengths(wav: bytes) -> bytes:
    """A whole WAV whose header, written while it was made, says that its length is unknown."""
    head = bytearray(wav[: WAV_HEADER.size])
    struct.pack_into("<I", head, 4, len(wav) - 8)
    struct.pack_into("<I", head, WAV_HEADER.size - 4, len(wav) - WAV_HEADER.size)
    return bytes(head) + wav[WAV_HEADER.size :]
