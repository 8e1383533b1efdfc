"""What the front and an engine process say to each other: small frames over a socket.

A frame is a kind, a stream's number, a length and so many bytes: JSON, or samples of 16 bits.
Nothing is unpickled, and no frame is longer than `MOST_BYTES`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

HEADER = struct.Struct("<BII")
MOST_BYTES = 8 * 2**20


class Kind(IntEnum):
    """Who says it, and what its bytes are."""

    # to the engine
    SUBMIT = 1  # JSON: an `Order`
    CANCEL = 2
    HOLD = 3  # send no more of this stream
    GO = 4
    # from the engine
    READY = 10  # JSON: what is loaded; it has spoken
    STARTED = 11  # JSON: queue_seconds, characters_left_out, left_out; samples follow
    AUDIO = 12  # samples
    DONE = 13  # JSON: the stream's stats
    FAILED = 14  # JSON: a `Failure`
    PULSE = 15  # JSON: how the engine does; every second
    ALIVE = 17  # the process runs, though nothing was said for a second: a step takes long
    UNUSABLE = 16  # JSON: message; the model cannot be loaded, and trying again would not help


KINDS = frozenset(Kind)
# Codes of failures that are the request's own.
INVALID_VALUE, NOTHING_TO_SPEAK, UNREADABLE = "invalid_value", "nothing_to_speak", "unreadable_text"


class WireError(Exception):
    """The other side says what nobody of ours would."""


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    stream: int
    payload: bytes

    def json(self) -> dict[str, Any]:
        value = json.loads(self.payload)
        if not isinstance(value, dict):
            raise WireError(f"{self.kind.name} holds no object")
        return value


def pack(kind: Kind, stream: int = 0, payload: bytes | dict[str, Any] = b"") -> bytes:
    if isinstance(payload, dict):
        payload = json.dumps(payload, allow_nan=False).encode()
    if len(payload) > MOST_BYTES:
        raise WireError(f"{kind.name} of {len(payload)} bytes is too long")
    return HEADER.pack(kind, stream, len(payload)) + payload


def unpack_header(data: bytes) -> tuple[Kind, int, int]:
    """Kind, stream, and how many bytes follow."""
    number, stream, length = HEADER.unpack(data)
    if length > MOST_BYTES or number not in KINDS:
        raise WireError(f"a frame of kind {number} with {length} bytes")
    return Kind(number), stream, length


class Frames:
    """Bytes as they come, to frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._data += data
        while len(self._data) >= HEADER.size:
            kind, stream, length = unpack_header(bytes(self._data[: HEADER.size]))
            end = HEADER.size + length
            if len(self._data) < end:
                return
            payload = bytes(self._data[HEADER.size : end])
            del self._data[:end]
            yield Frame(kind, stream, payload)


@dataclass(frozen=True, slots=True)
class Order:
    """What an engine is asked to say. The front has checked it; only the model knows whether the
    text can be read."""

    name: str  # of its request, for the log
    text: str
    voice: str | None
    seed: int
    max_seconds: float | None
    sampling: dict[str, float]
    batch: bool  # wait for all that is not
    normalize: str  # one of `text.normalization.MODES`
    strict: bool  # refuse what the model cannot read


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stream ended without its end."""

    message: str
    mine: bool  # the request's own fault: its text cannot be read
    code: str = INVALID_VALUE  # for clients
    characters_left_out: int = 0  # of a text with nothing to speak
    left_out: tuple[str, ...] = ()  # the first of them, by code point and name


@dataclass(frozen=True, slots=True)
class Place:
    """What an engine process loads."""

    model: str
    recipe: str | None
    device: str | None
    codec: str | None
    slots: int | None
    max_length: int | None
    graphs: bool
    low_latency: bool
    voices: tuple[str, ...] | None = None  # of a fine-tune; None is what the checkpoint names
    rtf_when_full: float | None = None  # measured by an earlier process of this engine
