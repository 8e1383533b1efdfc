"""Text in and sound out over a WebSocket, while a language model still writes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from quaver.server.access import SUBPROTOCOL
from quaver.server.engines import Engine
from quaver.server.errors import INVALID, ApiError, busy, invalid, unavailable
from quaver.server.jsontext import SurrogateJoiner
from quaver.server.schemas import SessionConfig, SessionMessage, check_length, parse
from quaver.server.service import Service, Utterance
from quaver.server.wire import NOTHING_TO_SPEAK, UNREADABLE
from quaver.text.feed import SentenceFeed
from quaver.text.reading import LeftOut

log = logging.getLogger("quaver.server")

MOST_TURNS = 8  # utterances of one connection that are not said yet
POLICY, BROKEN = 1008, 1011  # close codes
SENTENCE_REFUSALS = (NOTHING_TO_SPEAK, UNREADABLE)  # of one sentence, before it has sound


@dataclass(eq=False)
class Turn:
    """One utterance: its sentences as they come, and the task that speaks them."""

    index: int
    engine: Engine
    config: SessionConfig
    feed: SentenceFeed
    chars: int = 0
    joiner: SurrogateJoiner = field(default_factory=SurrogateJoiner)
    sentences: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)  # None is the end
    task: asyncio.Task[None] | None = None

    def add(self, text: str, most: int) -> None:
        """ApiError for more text than an utterance may have."""
        text = self.joiner.push(text)
        self.chars += len(text)
        check_length(self.chars, most)
        self._queue(self.feed.push(text))

    def end(self) -> None:
        self._queue([*self.feed.finish(), None])

    def _queue(self, sentences: list[str] | list[str | None]) -> None:
        for sentence in sentences:
            self.sentences.put_nowait(sentence)


def check_origin(websocket: WebSocket, allowed: tuple[str, ...]) -> None:
    """ApiError for a page of elsewhere: browsers let any page open a WebSocket."""
    origin = websocket.headers.get("origin")
    if origin is None or origin in allowed or "*" in allowed:
        return
    if _netloc(origin) != websocket.headers.get("host"):
        message = f"pages of {origin[:128]!r} may not use this server; see --cors-origin"
        raise ApiError(403, INVALID, "origin_not_allowed", message)


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # a bracket that is not closed, and the like
        return None


class Session:
    """One connection."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._socket, self._service = websocket, service
        self._config = SessionConfig()
        self._turns: list[Turn] = []  # not said yet, in order
        self._open: Turn | None = None  # takes text
        self._deaf = False  # the utterance failed: what still comes of its text is let go
        self._count = 0
        self._speaking = False

    async def run(self) -> None:
        """Until either side ends it."""
        offered = [each for each in self._socket["subprotocols"] if each.startswith(SUBPROTOCOL)]
        await self._socket.accept(subprotocol=offered[0] if offered else None)
        try:
            while await self._obey_next():
                pass
        except (WebSocketDisconnect, TimeoutError):
            pass  # it left, or takes nothing
        finally:
            await self._stop()
        await self._close()

    async def _close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close, unless either side has."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError):  # the client has
                await self._socket.close(code, reason)

    async def _obey_next(self) -> bool:
        """Do as one message says; False at the end."""
        settings = self._service.settings
        try:
            async with asyncio.timeout(settings.idle_timeout):
                text = (await self._receive()).get("text")
        except TimeoutError:
            if self._speaking:
                return True
            await self._close(POLICY, f"nothing was sent for {settings.idle_timeout:g} s")
            return False
        try:
            if text is None:
                raise invalid("messages are JSON in text frames", None, "invalid_json")
            message = parse(SessionMessage, text)
            if message.type == "session.close":
                return False
            await self._obey(message, text)
        except ApiError as error:
            await self._send_error(error)
        return True

    async def _receive(self) -> dict[str, Any]:
        message = dict(await self._socket.receive())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        return message

    async def _obey(self, message: SessionMessage, raw: str) -> None:
        if message.type == "session.config":
            config = parse(SessionConfig, raw)
            config.order("", "", self._engine(config).facts["voices"])  # mistakes are told now
            self._config = config
        elif message.type == "input.clear":
            await self._stop()
            await self._send({"type": "input.cleared", "utterance_index": self._count - 1})
        elif message.type == "input.done":
            await self._end_turn()
        elif not self._deaf:
            self._add(message.text)

    def _add(self, text: str | None) -> None:
        if text is None:
            raise invalid("text is missing", "text", "missing_required_parameter")
        turn = self._open or self._begin()
        try:
            turn.add(text, self._service.settings.max_chars)
        except ApiError:
            self._refuse_more(turn)
            if turn.task is not None:
                turn.task.cancel()
            raise

    def _begin(self) -> Turn:
        if len(self._turns) >= MOST_TURNS:
            raise busy(f"{MOST_TURNS} utterances wait to be said", "server_busy", 1)
        self._service.count(self._socket.state.caller)
        engine = self._engine(self._config)
        asked, facts = self._config.normalize, engine.facts
        mode = facts["normalize"] if asked == "auto" else asked
        feed = SentenceFeed(facts["comfortable_chars"], mode)
        turn = self._open = Turn(self._count, engine, self._config, feed)
        self._count += 1
        before = self._turns[-1].task if self._turns else None
        self._turns.append(turn)
        turn.task = asyncio.create_task(self._speak(turn, before))
        return turn

    def _engine(self, config: SessionConfig) -> Engine:
        engine = self._service.engine(config.model, config.recipe)
        if not engine.facts:
            raise unavailable("the model is loading", "not_ready")
        return engine

    async def _end_turn(self) -> None:
        turn, self._open = self._open, None
        if turn is not None:
            turn.end()
        elif not self._deaf:  # an utterance without text is said at once
            self._count += 1
            await self._send_done(self._count - 1, 0, 0.0)
        self._deaf = False

    def _refuse_more(self, turn: Turn) -> None:
        """What still comes of a turn's text is let go."""
        if turn is self._open:
            self._open, self._deaf = None, True

    async def _stop(self) -> None:
        """Nothing more is said of what came so far."""
        tasks = [turn.task for turn in self._turns if turn.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._open, self._deaf = None, False

    async def _speak(self, turn: Turn, before: asyncio.Task[None] | None) -> None:
        """Say a turn once what came before is said; whatever happens is told."""
        try:
            if before is not None:
                await asyncio.wait([before])
            await self._speak_sentences(turn)
        except WebSocketDisconnect:
            pass  # whoever receives sees it too
        except TimeoutError:
            await self._close(POLICY, "nothing was taken")
        except Exception:
            log.exception("%s failed", self._socket.state.name)
            await self._close(BROKEN)
        finally:
            self._turns.remove(turn)

    async def _speak_sentences(self, turn: Turn) -> None:
        """As they come."""
        try:
            with self._service.accepted(turn.engine, turn.config.batch):
                number, seconds = 0, 0.0
                while (sentence := await turn.sentences.get()) is not None:
                    seconds = await self._say(turn, number, sentence, seconds)
                    number += 1
            await self._send_done(turn.index, number, seconds)
        except ApiError as error:
            self._refuse_more(turn)
            await self._send_error(error)

    async def _say(self, turn: Turn, number: int, sentence: str, start: float) -> float:
        """Say one; returns when its sound ends, in seconds of the utterance's sound."""
        config, sent, end = turn.config, 0, start
        about = {"utterance_index": turn.index, "sentence_index": number}
        name = f"{self._socket.state.name}/{turn.index}.{number}"
        made = Utterance(self._service, turn.engine, name, sentence, config)
        begun = {
            "type": "audio.start",
            **about,
            "sentence_text": sentence,
            "format": config.response_format,
            "sample_rate": made.rate,
            "start_seconds": start,
        }
        done = about | {"type": "audio.done", "start_seconds": start}
        self._speaking = True
        try:
            async with made as utterance, aclosing(utterance.pieces()) as pieces:
                async for piece in pieces:
                    if not sent:
                        if made.left_out.count:
                            await self._warn(about, made.left_out)
                        await self._send(begun)
                    await self._send(piece)
                    sent += len(piece)
                end += utterance.seconds
        except ApiError as error:
            if error.code in SENTENCE_REFUSALS:
                await self._skip(about, made.left_out, error)
                return start
            if sent:
                await self._send(done | {"total_bytes": sent, "end_seconds": None, "error": True})
            raise
        finally:
            self._speaking = False
        if sent:
            await self._send(done | {"total_bytes": sent, "end_seconds": end, "error": False})
        return end

    async def _warn(self, about: dict[str, Any], left_out: LeftOut, skipped: str = "") -> None:
        """Tell what is not heard of a sentence; `skipped` says why none of it is."""
        message = skipped or left_out.sentence
        warning = {
            "type": "warning",
            **about,
            "message": message,
            "count": left_out.count,
            "characters": left_out.names,
            "skipped": bool(skipped),
        }
        await self._send(warning)

    async def _skip(self, about: dict[str, Any], left_out: LeftOut, error: ApiError) -> None:
        """Leave one sentence out; the turn goes on, since what follows is as good as before."""
        if error.code == NOTHING_TO_SPEAK:
            await self._warn(about, left_out, error.message)
        else:
            await self._send({"type": "error", **about, **error.body()})

    async def _send_done(self, index: int, sentences: int, seconds: float) -> None:
        done = {"utterance_index": index, "total_sentences": sentences, "audio_seconds": seconds}
        await self._send({"type": "session.done", **done})

    async def _send_error(self, error: ApiError) -> None:
        await self._send({"type": "error", **error.body()})

    async def _send(self, message: bytes | dict[str, Any]) -> None:
        if self._socket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(1006)  # another task has closed it
        async with asyncio.timeout(self._service.settings.send_timeout):
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            else:
                await self._socket.send_json(message)
