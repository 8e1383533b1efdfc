"""WebSocket frames, parsed in turns.

One read may hold 256 KB, which is 40,000 empty frames. Parsed in one go they stop the event loop,
and so every stream, for seconds. Here each connection's bytes are parsed a slice at a time, all
connections in turn, and parsing takes at most half of the loop's time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

SLICE = 512  # bytes: some 80 of the smallest frames, which take 4 to 10 ms
TURN_SECONDS = 0.005  # after which other work of the event loop goes first
MOST_UNREAD = 1 << 16  # bytes of a connection that are not parsed; then no more are read
MOST_FRAGMENTS = 1024  # of one message
INVALID_TEXT, TOO_BIG = 1007, 1009  # close codes


class Turns:
    """The parsing of all connections, a slice of each in turn."""

    def __init__(self) -> None:
        self._waiting: deque[WebSocketProtocol] = deque()
        self._scheduled = False

    def add(self, protocol: WebSocketProtocol) -> None:
        """`protocol` has bytes to parse; it is not waiting already."""
        self._waiting.append(protocol)
        if not self._scheduled:
            self._scheduled = True
            protocol.loop.call_soon(self._run)

    def _run(self) -> None:
        started = time.perf_counter()
        while self._waiting:
            protocol = self._waiting.popleft()
            if protocol.parse_slice():
                self._waiting.append(protocol)
            if self._waiting and (spent := time.perf_counter() - started) > TURN_SECONDS:
                protocol.loop.call_later(spent, self._run)
                return
        self._scheduled = False


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from its handshake on."""

    def __init__(
        self, *, turns: Turns, left: Callable[[], None], count: Callable[[str], None], **given: Any
    ) -> None:
        """`left` is called when the connection is gone; `count` counts a client's error."""
        super().__init__(**given)
        self._turns, self._left, self._count = turns, left, count
        self._unread = bytearray()
        self._queued = False  # waits for its turn

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()
        self._unread.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            self._parse(data)
            return
        self._unread += data
        if len(self._unread) > MOST_UNREAD and not self.transport.is_closing():
            self.transport.pause_reading()
        self._queue()

    def parse_slice(self) -> bool:
        """Parse some of what came; whether there is more to parse now."""
        self._queued = False
        if self.transport.is_closing() or self._must_wait():
            return False
        data = bytes(self._unread[:SLICE])
        del self._unread[:SLICE]
        self._parse(data)
        if not (self._unread or self.transport.is_closing()):
            self.transport.resume_reading()
        self._queued = bool(self._unread) and not self._must_wait()
        return self._queued

    def _queue(self) -> None:
        if self._unread and not self._queued and not self._must_wait():
            self._queued = True
            self._turns.add(self)

    def _must_wait(self) -> bool:
        """Whether the application still has messages; after a close it takes none."""
        return not self.close_sent and not self.queue.empty()

    def _parse(self, data: bytes) -> None:
        self.conn.receive_data(data)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
            return
        self.handle_events()

    def handle_parser_exception(self) -> None:
        """The client broke the protocol: say so where that can be said, and close."""
        self._count("websocket_protocol")
        self._unread.clear()
        if self.conn.close_sent is None:  # in the handshake
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self.transport.close()
            return
        super().handle_parser_exception()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MOST_FRAGMENTS:
            self._fail(TOO_BIG, f"a message has more than {MOST_FRAGMENTS} fragments")
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        data = b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "bytes":
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._fail(INVALID_TEXT, "a text message is not UTF-8")
            return
        self.queue.put_nowait({"type": "websocket.receive", "text": text})

    def _fail(self, code: int, reason: str) -> None:
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    async def receive(self) -> ASGIReceiveEvent:
        message = await self.queue.get()
        self._queue()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        ended = self.close_sent and self.initial_response is None
        if ended or self.transport.is_closing():
            raise ClientDisconnected
        await super().send(message)
        if self.close_sent and self.initial_response is not None:
            self.handshake_complete = True  # it was refused, which is no fault to log

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        except asyncio.CancelledError:
            self.transport.close()
            raise
