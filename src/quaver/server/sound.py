"""Samples of 16 bits, as an engine sends them, to bytes of the format that a client wants."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

from quaver.audio.encode import WAV_HEADER, StreamWriter, pcm16
from quaver.audio.levels import from_pcm16
from quaver.audio.tempo import Tempo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm;rate={rate}",
}
LIGHT = ("pcm", "wav")  # so little work that another thread would be more


def media_type(format: str, sample_rate: int) -> str:
    return MEDIA_TYPES[format].format(rate=sample_rate)


class Sound:
    """One stream's bytes. Not for two threads at once; close it, whole or not."""

    def __init__(self, format: str, sample_rate: int, speed: float) -> None:
        self.heavy = format not in LIGHT or speed != 1
        self._tempo = None if speed == 1 else Tempo(sample_rate, speed)
        self._sink = io.BytesIO()
        self._writer = None if format == "pcm" else StreamWriter(self._sink, sample_rate, format)

    def push(self, pcm: bytes) -> bytes:
        """What is ready of it, perhaps nothing."""
        if self._tempo is None and self._writer is None:
            return pcm
        samples = from_pcm16(pcm)
        return self._encode(samples if self._tempo is None else self._tempo.push(samples))

    def finish(self) -> bytes:
        """The rest."""
        rest = b"" if self._tempo is None else self._encode(self._tempo.finish())
        if self._writer is not None:
            self._writer.close()
        return rest + self._take()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    def _encode(self, samples: NDArray[np.float32]) -> bytes:
        if self._writer is None:
            return pcm16(samples).tobytes()
        self._writer.write(samples)
        return self._take()

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
