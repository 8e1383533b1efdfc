"""The answer to `POST /v1/audio/speech`: bytes or events, from the first sound on."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from quaver.server.engines import Engine
from quaver.server.errors import ApiError
from quaver.server.schemas import SpeechRequest
from quaver.server.service import Service, Utterance
from quaver.server.sound import media_type, with_lengths

NO_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class SpeechResponse(Response):
    """Speaks when it is sent, so that whatever ends the sending ends the speaking too."""

    def __init__(self, service: Service, engine: Engine, name: str, asked: SpeechRequest) -> None:
        super().__init__()
        self._service, self._engine, self._name, self._asked = service, engine, name, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _while_connected(self._answer(scope, receive, send), receive)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until headers are sent an error is an answer; afterwards it ends the stream."""
        sender = _Sender(send, self._service.settings.send_timeout)
        try:
            with self._service.accepted(self._engine, self._asked.batch):
                asked = self._asked
                made = Utterance(self._service, self._engine, self._name, asked.input, asked)
                async with made as utterance, aclosing(utterance.pieces()) as pieces:
                    if not asked.stream:
                        await self._send_whole(sender, utterance, pieces)
                    elif asked.stream_format == "sse":
                        await self._send_events(sender, utterance, pieces)
                    else:
                        await self._send_bytes(sender, utterance, pieces)
        except ApiError as error:
            if not sender.started:
                response = JSONResponse(error.body(), error.status, error.headers)
                await response(scope, receive, send)
            # else the server closes the connection, since the body has no end
        except TimeoutError:
            pass  # of a client that takes nothing; the connection is closed as well

    async def _send_bytes(
        self, sender: _Sender, utterance: Utterance, pieces: AsyncGenerator[bytes]
    ) -> None:
        first = await anext(pieces, b"")
        await sender.start(self._told(utterance) | NO_BUFFER)
        await sender.body(first)
        async for piece in pieces:
            await sender.body(piece)
        await sender.end()

    async def _send_events(
        self, sender: _Sender, utterance: Utterance, pieces: AsyncGenerator[bytes]
    ) -> None:
        first = await anext(pieces, b"")
        headers = self._told(utterance) | NO_BUFFER
        await sender.start(headers | {"Content-Type": "text/event-stream; charset=utf-8"})
        try:
            if first:
                await sender.body(_delta(first))
            async for piece in pieces:
                await sender.body(_delta(piece))
        except ApiError as error:
            await sender.body(_event({"type": "speech.audio.error"} | error.body()))
            raise  # clients that read no events take a clean end for a whole stream
        await sender.body(_done(utterance.stats or {}))
        await sender.end()

    async def _send_whole(
        self, sender: _Sender, utterance: Utterance, pieces: AsyncGenerator[bytes]
    ) -> None:
        whole = b"".join([piece async for piece in pieces])
        if self._asked.response_format == "wav":
            whole = with_lengths(whole)
        stats = utterance.stats or {}
        headers = self._told(utterance) | {
            "Content-Length": str(len(whole)),
            "X-Audio-Duration": f"{utterance.seconds:.3f}",
            "X-RTF": "" if stats["rtf"] is None else f"{stats['rtf']:.3f}",
        }
        await sender.start(headers)
        await sender.body(whole)
        await sender.end()

    def _told(self, utterance: Utterance) -> dict[str, str]:
        """What is known once there is sound."""
        timing = [f"queue;dur={1e3 * utterance.queue_seconds:.1f}"]
        if utterance.ttfa_seconds is not None:
            timing.append(f"ttfa;dur={1e3 * utterance.ttfa_seconds:.1f}")
        count = utterance.left_out.count
        return ({"X-Characters-Left-Out": str(count)} if count else {}) | {
            "Content-Type": media_type(self._asked.response_format, utterance.rate),
            "X-Sample-Rate": str(utterance.rate),
            "X-Model": quote(self._service.model_id),
            "X-Recipe": quote(str(self._engine.facts["recipe"]), safe="=,*. "),
            "X-Voice": quote(utterance.order.voice or ""),
            "X-Seed": str(utterance.order.seed),
            "Server-Timing": ", ".join(timing),
        }


class _Sender:
    """The parts of one answer; TimeoutError from a client that takes nothing."""

    def __init__(self, send: Send, timeout: float) -> None:
        self._send, self._timeout = send, timeout
        self.started = False

    async def start(self, headers: dict[str, str]) -> None:
        self.started = True
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def body(self, data: bytes) -> None:
        async with asyncio.timeout(self._timeout):
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do it, unless the client leaves first."""
    doing, leaving = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.wait((doing, leaving))
    if not doing.cancelled():
        doing.result()


async def _left(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def _delta(piece: bytes) -> bytes:
    audio = base64.b64encode(piece).decode()
    return _event({"type": "speech.audio.delta", "audio": audio})


def _done(stats: dict[str, Any]) -> bytes:
    read, made = stats["prompt_tokens"], stats["tokens"]
    usage = {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}
    return _event({"type": "speech.audio.done", "usage": usage, "stats": stats})
