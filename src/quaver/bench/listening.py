"""Listeners of a speech service: each asks over HTTP, plays from the first chunk on, and notes what
it waited for.

Open loop: listeners come at random at a rate, whatever became of those before. Closed loop: so many
listen at any time, and each asks again when its sound has been *heard*, not when it was made.

A connection is kept for the next request, as OpenAI's clients and httpx do, unless the load asks
for a fresh one each time.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

from quaver.audio.levels import first_audible, from_pcm16
from quaver.bench.streams import Heard
from quaver.core.errors import InputError
from quaver.core.types import StreamStats

SPEECH, MODELS = "/v1/audio/speech", "/v1/models"
PATIENCE = 120.0  # seconds without a byte, after which a stream has failed
READ_BYTES = 1 << 20
SENTENCES = (1, 2, 2, 3, 4)  # in one request, one as likely as the other
RAMP_SHARE, LONGEST_RAMP = 0.25, 5.0  # closed loop: listeners begin within this of the time


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a service."""

    url: str
    key: str | None
    seconds: float  # in which listeners ask; those who listen then are heard to the end
    rate: float | None  # of listeners who come, a second
    listeners: int | None  # or at any time
    max_seconds: float | None  # of sound of a segment
    seed: int
    fresh_connections: bool = False  # one for each request


@dataclass(slots=True)
class Listened:
    """One request and what became of it."""

    at_once: int  # listeners when it was asked, itself too
    heard: Heard
    outcome: str = "cut"  # or `ok`, or what was answered instead of sound
    seconds: float = 0.0  # until it was answered whole


class Connection:
    """To a service, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    async def open(cls, place: SplitResult) -> Self:
        """OSError where nobody listens."""
        secure = place.scheme == "https"
        port = place.port or (443 if secure else 80)
        return cls(
            *await asyncio.open_connection(
                place.hostname, port, ssl=secure or None, limit=READ_BYTES
            )
        )

    @property
    def closed(self) -> bool:
        """Whether the service has closed it."""
        return self.reader.at_eof() or self._writer.is_closing()

    def ask(
        self,
        place: SplitResult,
        method: str,
        path: str,
        key: str | None,
        content: Mapping[str, Any] | None,
    ) -> None:
        """Send a request."""
        body = b"" if content is None else json.dumps(content).encode()
        lines = [
            f"{method} {place.path.rstrip('/')}{path} HTTP/1.1",
            f"Host: {place.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *([] if key is None else [f"Authorization: Bearer {key}"]),
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers, in small letters."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        return int(head[0].split()[1]), headers

    def close(self) -> None:
        self._writer.close()


@dataclass
class Crowd:
    """All listeners of one run."""

    load: Load
    texts: Sequence[str]
    rate: int  # samples a second
    said: list[Listened] = field(default_factory=list)
    now: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.load.seed)
        self._place = urlsplit(self.load.url)
        self._kept: list[Connection] = []

    async def run(self) -> None:
        """Everything, from the first listener to the last."""
        try:
            await self._run()
        finally:
            for connection in self._kept:
                connection.close()

    async def _run(self) -> None:
        ends = time.perf_counter() + self.load.seconds
        async with asyncio.TaskGroup() as group:
            if self.load.rate is not None:
                while time.perf_counter() < ends:
                    group.create_task(self._listen())
                    await asyncio.sleep(self._random.expovariate(self.load.rate))
                return
            ramp = min(RAMP_SHARE * self.load.seconds, LONGEST_RAMP)
            for number in range(self.load.listeners or 0):
                group.create_task(self._keep_listening(ramp * number, ends))

    async def _keep_listening(self, ramp: float, ends: float) -> None:
        await asyncio.sleep(ramp / (self.load.listeners or 1))
        while time.perf_counter() < ends:
            await self._listen()

    async def _listen(self) -> None:
        """Ask once, and play what comes to its end."""
        self.now += 1
        self.most = max(self.most, self.now)
        listened = Listened(self.now, Heard(StreamStats(), self.rate))
        self.said.append(listened)
        try:
            await self._speak(listened)
            heard = listened.heard
            if heard.arrivals:
                played = heard.arrivals[0] + sum(heard.samples) / heard.sample_rate
                await asyncio.sleep(max(0.0, played - listened.seconds))
            elif listened.outcome != "ok":
                await asyncio.sleep(1.0)  # nobody asks again at once
        finally:
            self.now -= 1

    async def _speak(self, listened: Listened) -> None:
        asked = {
            "input": " ".join(self._random.sample(self.texts, self._random.choice(SENTENCES))),
            "response_format": "pcm",
            "seed": self._random.randrange(2**31),
        }
        if self.load.max_seconds is not None:
            asked["max_seconds"] = self.load.max_seconds
        started = time.perf_counter()
        try:
            connection = await self._connection()
        except OSError as error:
            listened.outcome = type(error).__name__
            return
        whole = False
        try:
            connection.ask(self._place, "POST", SPEECH, self.load.key, asked)
            async with asyncio.timeout(None) as patience:
                whole = await self._hear(connection, listened, started, patience)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            listened.outcome = "cut" if isinstance(error, EOFError) else type(error).__name__
        finally:
            listened.seconds = time.perf_counter() - started
            if whole and not self.load.fresh_connections:
                self._kept.append(connection)
            else:
                connection.close()

    async def _connection(self) -> Connection:
        """One that is kept, if the service has left any open, or a new one."""
        while self._kept:
            connection = self._kept.pop()
            if not connection.closed:
                return connection
            connection.close()
        return await Connection.open(self._place)

    async def _hear(
        self,
        connection: Connection,
        listened: Listened,
        started: float,
        patience: asyncio.Timeout,
    ) -> bool:
        """Whether the connection can be asked again."""
        status, headers = await connection.head()
        reader, goes_on = connection.reader, headers.get("connection") != "close"
        if status != 200:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            listened.outcome = f"{status} {_code(body)}"
            return goes_on
        heard, loop = listened.heard, asyncio.get_running_loop()
        heard.sample_rate = int(headers.get("x-sample-rate", self.rate))
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data = (await reader.readexactly(size + 2))[:-2]
            patience.reschedule(loop.time() + PATIENCE)
            now = time.perf_counter() - started
            heard.arrivals.append(now)
            heard.samples.append(len(data) // 2)
            if heard.first_audible is None and first_audible(from_pcm16(data)) is not None:
                heard.first_audible = now
        await reader.readuntil(b"\r\n")  # the end of the trailers, of which there are none
        listened.outcome = "ok"
        return goes_on


def listen(
    load: Load, texts: Sequence[str], progress: Callable[[str], None]
) -> tuple[Crowd, float, dict[str, Any]]:
    """Put `load` on a service; returns the crowd, how long it took, and the service's model.

    InputError if there is no such service.
    """
    model = asyncio.run(_model(load))
    progress(f"{model['id']} at {load.url}")
    crowd = Crowd(load, texts, model["sample_rate"])
    started = time.perf_counter()
    asyncio.run(crowd.run())
    return crowd, time.perf_counter() - started, model


async def _model(load: Load) -> dict[str, Any]:
    place = urlsplit(load.url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise InputError(f"the service is {load.url!r}; give a URL such as http://127.0.0.1:8000")
    try:
        connection = await Connection.open(place)
        connection.ask(place, "GET", MODELS, load.key, None)
        status, headers = await connection.head()
        body = await connection.reader.readexactly(int(headers.get("content-length", 0)))
        connection.close()
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise InputError(f"no speech service answers at {load.url}: {error}") from None
    if status != 200:
        raise InputError(f"{load.url} answers {status} {_code(body)}; is QUAVER_API_KEY right?")
    model: dict[str, Any] = json.loads(body)["data"][0]
    if not model.get("ready"):
        raise InputError(f"{load.url} is not ready; wait for its /health/ready")
    return model


def _code(body: bytes) -> str:
    """What a refusal is called."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
