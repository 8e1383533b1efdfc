"""Engine processes as the front sees them: started, watched, started again when they die.

What dies with an engine are the streams that it carried, each with `EngineLostError`; requests that
come before it is back are refused. Everything else goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from enum import StrEnum
from itertools import count
from typing import Any

from quaver.core.errors import ConfigError
from quaver.server.wire import Failure, Frame, Frames, Kind, Order, Place, WireError, pack

log = logging.getLogger("quaver.engines")

WORKER = (sys.executable, "-m", "quaver.server.worker")
SOCKET_BYTES = 1 << 20
HELD_ABOVE, GO_BELOW = 10.0, 5.0  # seconds of sound that wait for a client
QUIET_SECONDS = 6.0  # a process that runs says so every second; then it is not ready
SILENT_SECONDS = 120.0  # without a step, after which an engine is started again
FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0  # seconds before an engine is started again
WELL_AFTER = 60.0  # seconds of life, and the wait is the first again


class EngineLostError(Exception):
    """The engine process died, or is not there."""


class StreamFailedError(Exception):
    """One stream failed; the engine lives."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.mine, self.failure = failure.mine, failure


class Status(StrEnum):
    LOADING = "loading"
    READY = "ready"
    SILENT = "silent"  # it was ready, and its process does not answer
    LOST = "lost"


class Ticket:
    """One stream: what the engine says of it, in order."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine, self.number = engine, number
        self._said: deque[Frame | Exception] = deque()
        self._news = asyncio.Event()
        self._waiting_bytes = 0
        self._held = False
        self.over = False  # the engine has no more to say

    async def next(self) -> Frame:
        """STARTED, then AUDIO, and DONE at last. Raises StreamFailedError or EngineLostError."""
        while not self._said:
            self._news.clear()
            await self._news.wait()
        said = self._said.popleft()
        if isinstance(said, Exception):
            raise said
        if said.kind is Kind.AUDIO:
            self._count(-len(said.payload))
        return said

    def cancel(self) -> None:
        """Nobody listens any more."""
        self._engine.forget(self)

    def hear(self, said: Frame | Exception) -> None:
        self._said.append(said)
        self._news.set()
        if isinstance(said, Exception) or said.kind is Kind.DONE:
            self.over = True
        elif said.kind is Kind.AUDIO:
            self._count(len(said.payload))

    def _count(self, change: int) -> None:
        """Hold a stream whose client is slow, and let it go on."""
        self._waiting_bytes += change
        seconds = self._waiting_bytes / 2 / self._engine.facts["sample_rate"]
        held = seconds > (GO_BELOW if self._held else HELD_ABOVE)
        if held is not self._held and not self.over:
            self._held = held
            self._engine.say(Kind.HOLD if held else Kind.GO, self.number)


class Engine:
    """One recipe's process, and the next one when it dies."""

    def __init__(self, place: Place, command: Sequence[str] = WORKER) -> None:
        self.place, self._command = place, command
        self._status = Status.LOADING
        self._heard = self._stepped = 0.0  # when it last said anything, and anything of a step
        self.facts: dict[str, Any] = {}  # once it was ready; kept while it is lost
        self.pulse: dict[str, Any] = {}
        self.restarts = 0
        self._tickets: dict[int, Ticket] = {}
        self._numbers = count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()

    @property
    def name(self) -> str:
        """The recipe, as it turned out once it is loaded."""
        return str(self.facts.get("recipe", self.place.recipe or ""))

    @property
    def status(self) -> Status:
        quiet = time.monotonic() - self._heard > QUIET_SECONDS
        return Status.SILENT if quiet and self._status is Status.READY else self._status

    async def wait_ready(self) -> None:
        await self._ready.wait()

    def submit(self, order: Order) -> Ticket:
        """Raises EngineLostError where the engine is not ready."""
        if self.status is not Status.READY:
            raise EngineLostError("the engine is not ready")
        ticket = Ticket(self, next(self._numbers) % 2**32)
        self._tickets[ticket.number] = ticket
        self.say(Kind.SUBMIT, ticket.number, asdict(order))
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Cancel what runs of a stream; nothing if it is over."""
        if self._tickets.pop(ticket.number, None) is not None:
            self.say(Kind.CANCEL, ticket.number)

    def say(self, kind: Kind, number: int, payload: bytes | dict[str, Any] = b"") -> None:
        if self._writer is not None:
            self._writer.write(pack(kind, number, payload))

    async def run(self) -> None:
        """Keep an engine running until cancelled. ConfigError if the first cannot be loaded."""
        wait = FIRST_WAIT
        while True:
            started = time.monotonic()
            try:
                await self._live()
            finally:
                await self._end()
            if not self.facts:
                raise ConfigError("the engine ended before it was ready; what it said is above")
            if time.monotonic() - started > WELL_AFTER:
                wait = FIRST_WAIT
            log.error("the engine %s is gone; another starts in %.1f s", self.name, wait)
            self.restarts += 1
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _live(self) -> None:
        """One process, from start to death."""
        ours, theirs = socket.socketpair()
        with theirs:
            for end in (ours, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
            place = replace(self.place, rtf_when_full=self.facts.get("rtf_when_full"))
            arguments = (str(theirs.fileno()), json.dumps(asdict(place)))
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=SOCKET_BYTES)
            self._process = await asyncio.create_subprocess_exec(
                *self._command, *arguments, pass_fds=[theirs.fileno()]
            )
        frames = Frames()
        with suppress(ConnectionError):
            try:
                while True:
                    patience = None if self._status is not Status.READY else SILENT_SECONDS
                    async with asyncio.timeout(patience):
                        data = await reader.read(SOCKET_BYTES)
                    if not data:
                        return
                    self._heard = time.monotonic()
                    for frame in frames.feed(data):
                        self._hear(frame)
                    if patience is not None and self._heard - self._stepped > patience:
                        raise TimeoutError
            except (WireError, TimeoutError) as error:
                log.error("the engine %s makes no sense: %s", self.name, error or "silence")

    def _hear(self, frame: Frame) -> None:
        if frame.kind is Kind.ALIVE:
            return
        self._stepped = self._heard
        if frame.kind is Kind.READY:
            self.facts, self._status = frame.json(), Status.READY
            self._ready.set()
            log.info("the engine %s is ready", self.name)
        elif frame.kind is Kind.PULSE:
            self.pulse = frame.json()
        elif frame.kind is Kind.UNUSABLE:
            message = frame.json()["message"]
            if not self.facts:
                raise ConfigError(message)
            log.error("the engine %s cannot be loaded again: %s", self.name, message)
        elif (ticket := self._tickets.get(frame.stream)) is not None:
            if frame.kind is Kind.FAILED:
                ticket.hear(StreamFailedError(Failure(**frame.json())))
            else:
                ticket.hear(frame)
            if ticket.over:
                del self._tickets[ticket.number]

    def cut(self, message: str) -> None:
        """End all streams with an error."""
        tickets, self._tickets = [*self._tickets.values()], {}
        for ticket in tickets:
            ticket.hear(EngineLostError(message))

    async def _end(self) -> None:
        """Let go of a process that died, or make it die."""
        self._status, self.pulse = Status.LOST, {}
        self.cut("the engine crashed while it spoke; try again")
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
