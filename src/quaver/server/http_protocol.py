"""HTTP/1.1 with limits on what comes before a request is known: size, count and time of its head.

The parser itself keeps a header of any length, and the server waits for the rest of a head for
ever, so both are bounded here, in front of keys and routes. What is refused is counted and not
logged: a log that strangers can fill is a fault of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quaver.server.connections import Gate
from quaver.server.errors import INVALID, ApiError, unavailable

MOST_PIPELINED = 8  # requests that wait on one connection
BODY_GRACE = 5.0  # seconds after which a body that is still not whole ends its connection


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Of one request's head, and of the time for head and body, in seconds."""

    bytes: int
    headers: int
    seconds: float
    body_seconds: float


class _RefusedError(Exception):
    """Ends the parsing of a request that was refused."""


class HttpProtocol(HttpToolsProtocol):
    """One connection, until it becomes a WebSocket."""

    def __init__(
        self, *, gate: Gate, limits: HeadLimits, count: Callable[[str], None], **given: Any
    ) -> None:
        """`count` counts a kind of a client's error."""
        super().__init__(**given)
        self._gate, self._limits, self._count = gate, limits, count
        self._in_head = True
        self._unparsed = 0  # bytes of a head that is not whole
        self._size = 0  # bytes of the head's parts
        self._deadline: asyncio.TimerHandle | None = None
        self._ended = False  # nothing that still comes is read
        upgraded: Any = self.ws_protocol_class  # uvicorn calls it, so it need not be a class
        upgraded = upgraded and partial(upgraded, left=partial(gate.leave, self))
        self.ws_protocol_class = upgraded

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._gate.admit(self, self.client[0] if self.client else ""):
            self._expect(self._limits.seconds)
        else:
            self._refuse("too_many_connections", unavailable("too many connections", "server_busy"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.leave(self)
        self._expect(None)
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close at once; no request is being answered."""
        self._count("evicted")
        self._ended = True
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            self._unparsed += len(data)
            if self._deadline is None:
                self._expect(self._limits.seconds)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            if not self._ended:  # else the parser was stopped by a refusal
                message = "the request is not HTTP/1.1"
                self._refuse("malformed", ApiError(400, INVALID, "malformed_request", message))
        else:
            if self._in_head and self._unparsed > self._limits.bytes and not self._ended:
                self._refuse_head()

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            message = "the only protocol to upgrade to is websocket"
            self._refuse("malformed", ApiError(400, INVALID, "malformed_request", message))
            return
        self._expect(None)
        self._gate.mark_busy(self)
        self._ended = True
        self.handle_websocket_upgrade()

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._measure(len(name) + len(value) + 4)
        if len(self.headers) >= self._limits.headers:
            self._refuse_head()
            raise _RefusedError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self.evict()
            raise _RefusedError
        super().on_headers_complete()
        self._in_head = False
        self._gate.mark_busy(self)
        self._expect(self._limits.body_seconds + BODY_GRACE, self._end)

    def on_message_complete(self) -> None:
        self._in_head, self._unparsed, self._size = True, 0, 0
        self._expect(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and self.cycle.response_complete:
            self._gate.mark_idle(self)

    def _measure(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.bytes:
            self._refuse_head()
            raise _RefusedError

    # What ends a connection

    def _expect(self, seconds: float | None, late: Callable[[], None] | None = None) -> None:
        """Set the time until `late` is called, or `_late_head`; None waits for nothing."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, late or self._late_head)

    def _late_head(self) -> None:
        self._deadline = None
        if not self._unparsed:  # it was opened, and nothing was sent
            self._end()
            return
        message = f"the head of the request took more than {self._limits.seconds:g} s"
        self._refuse("head_timeout", ApiError(408, INVALID, "request_timeout", message))

    def _refuse_head(self) -> None:
        limits = self._limits
        message = f"the head has more than {limits.bytes} bytes or {limits.headers} headers"
        self._refuse("head_too_large", ApiError(431, INVALID, "head_too_large", message))

    def _end(self) -> None:
        self._ended = True
        if self.transport is not None:
            self.transport.close()

    def _refuse(self, kind: str, error: ApiError) -> None:
        """Answer where nothing is being answered, and close."""
        self._count(kind)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_answer(error))
        self._end()


def _answer(error: ApiError) -> bytes:
    body = json.dumps(error.body()).encode()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name.lower()}: {value}" for name, value in error.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
