"""Listeners of a speech service: each asks over HTTP, plays from the first chunk on, and notes what
it waited for.

Open loop: listeners come at random at a rate, whatever became of those before. Closed loop: so many
listen at any time, and each asks again when its sound has been *heard*, not when it was made.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
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


@dataclass(slots=True)
class Listened:
    """One request and what became of it."""

    at_once: int  # listeners when it was asked, itself too
    heard: Heard
    outcome: str = "cut"  # or `ok`, or what was answered instead of sound
    seconds: float = 0.0  # until it was answered whole


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

    async def run(self) -> None:
        """Everything, from the first listener to the last."""
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
                played = heard.arrivals[0] + sum(heard.samples) / self.rate
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
            reader, writer = await _ask(self._place, "POST", SPEECH, self.load.key, asked)
        except OSError as error:
            listened.outcome = type(error).__name__
            return
        try:
            async with asyncio.timeout(None) as patience:
                await self._hear(reader, listened, started, patience)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            listened.outcome = "cut" if isinstance(error, EOFError) else type(error).__name__
        finally:
            listened.seconds = time.perf_counter() - started
            writer.close()

    async def _hear(
        self,
        reader: asyncio.StreamReader,
        listened: Listened,
        started: float,
        patience: asyncio.Timeout,
    ) -> None:
        status, headers = await _head(reader)
        if status != 200:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            listened.outcome = f"{status} {_code(body)}"
            return
        heard, loop = listened.heard, asyncio.get_running_loop()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data = (await reader.readexactly(size + 2))[:-2]
            patience.reschedule(loop.time() + PATIENCE)
            now = time.perf_counter() - started
            heard.arrivals.append(now)
            heard.samples.append(len(data) // 2)
            if heard.first_audible is None and first_audible(from_pcm16(data)) is not None:
                heard.first_audible = now
        listened.outcome = "ok"


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
        reader, writer = await _ask(place, "GET", MODELS, load.key, None)
        status, headers = await _head(reader)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        writer.close()
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise InputError(f"no speech service answers at {load.url}: {error}") from None
    if status != 200:
        raise InputError(f"{load.url} answers {status} {_code(body)}; is QUAVER_API_KEY right?")
    model: dict[str, Any] = json.loads(body)["data"][0]
    if not model.get("ready"):
        raise InputError(f"{load.url} is not ready; wait for its /health/ready")
    return model


async def _ask(
    place: SplitResult, method: str, path: str, key: str | None, content: Mapping[str, Any] | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request that was sent; one connection each, as listeners are strangers to each other."""
    secure = place.scheme == "https"
    reader, writer = await asyncio.open_connection(
        place.hostname, place.port or (443 if secure else 80), ssl=secure or None, limit=READ_BYTES
    )
    body = b"" if content is None else json.dumps(content).encode()
    lines = [
        f"{method} {place.path.rstrip('/')}{path} HTTP/1.1",
        f"Host: {place.netloc}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([] if key is None else [f"Authorization: Bearer {key}"]),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    return reader, writer


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers, in small letters."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    return int(head[0].split()[1]), headers


def _code(body: bytes) -> str:
    """What a refusal is called."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""
