"""The service behind the routes: who is let in, what is spoken for whom, and how it went."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from quaver.audio.levels import first_audible, from_pcm16
from quaver.bench.streams import Heard
from quaver.core.types import StreamStats
from quaver.server.access import Rates
from quaver.server.engines import WORKER, Engine, EngineLostError, Status, StreamFailedError, Ticket
from quaver.server.errors import INVALID, ApiError, busy, failed, invalid, unavailable
from quaver.server.metrics import Metrics
from quaver.server.schemas import SpeechOptions, is_default_model
from quaver.server.settings import Settings
from quaver.server.sound import Sound
from quaver.server.wire import NOTHING_TO_SPEAK, Failure, Kind
from quaver.text.reading import LeftOut

log = logging.getLogger("quaver.server")

RECENT = 0.9  # of the mean duration of streams, what came before counts so much
MOST_RETRY = 60  # seconds
BATCH_SHARE = 2  # by so much less may wait for what is not urgent


class Service:
    """Engines, and the streams that they were given."""

    def __init__(self, settings: Settings, command: Sequence[str] = WORKER) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.engines = [Engine(place, command) for place in settings.places]
        self.draining = False
        self._accepted = dict.fromkeys(self.engines, 0)
        self._mean_seconds = 1.0
        self._rates = Rates(settings.rate_limit)
        self._somebody_left = asyncio.Event()
        self.pool = ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="encode")
        self.metrics.watch(self._numbers)

    async def run(self) -> None:
        """Keep engines running until cancelled. ConfigError if one cannot be loaded at all."""
        await asyncio.gather(*(self._run(number) for number in range(len(self.engines))))

    async def _run(self, number: int) -> None:
        """One after the other: each sees what memory those before it have left."""
        if number:
            await self.engines[number - 1].wait_ready()
        await self.engines[number].run()

    async def drain(self) -> None:
        """Let nobody in, and wait for those who are."""
        self.draining = True
        try:
            async with asyncio.timeout(self.settings.drain_timeout):
                while any(self._accepted.values()):
                    self._somebody_left.clear()
                    await self._somebody_left.wait()
        except TimeoutError:
            log.warning("streams are still running; they are cut")
            for engine in self.engines:
                engine.cut("the server is shutting down")

    @property
    def model_id(self) -> str:
        """What the model is called."""
        folder = Path(self.settings.model)
        return folder.resolve().name if folder.is_dir() else self.settings.model

    @property
    def ready(self) -> bool:
        return not self.draining and all(e.status is Status.READY for e in self.engines)

    def engine(self, model: str | None, recipe: str | None) -> Engine:
        """The engine that is meant. ApiError if there is none."""
        for engine in self.engines:
            if model == f"{self.model_id}:{engine.name}" and recipe in (None, engine.name):
                return engine
        if model not in (self.model_id, self.settings.model) and not is_default_model(model):
            known = ", ".join(self.model_ids())
            message = f"there is no model {str(model)[:64]!r}; there is {known}"
            raise ApiError(404, INVALID, "model_not_found", message, "model")
        for engine in self.engines:
            if recipe in (None, engine.name):
                return engine
        known = ", ".join(engine.name for engine in self.engines)
        raise invalid(f"recipe is {str(recipe)[:64]!r}; loaded are {known}", "recipe")

    def model_ids(self) -> dict[str, Engine]:
        """Every id, and the engine behind it."""
        ids = {self.model_id: self.engines[0]}
        if len(self.engines) > 1:
            ids |= {f"{self.model_id}:{engine.name}": engine for engine in self.engines}
        return ids

    def count(self, caller: str) -> None:
        """A request of `caller`. ApiError if it is one too many."""
        try:
            self._rates.count(caller)
        except ApiError as error:
            self.tell_refused(error)
            raise

    def tell_refused(self, error: ApiError, recipe: str = "") -> None:
        """Count it; `recipe` where it is known."""
        self.metrics.refused.labels(recipe, error.code).inc()

    @contextmanager
    def accepted(self, engine: Engine, batch: bool) -> Iterator[None]:
        """A place for a stream; `batch` leaves some to others. ApiError if there is none."""
        refusal = self._refusal(engine, batch)
        if refusal is not None:
            self.tell_refused(refusal, engine.name)
            raise refusal
        self._accepted[engine] += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self._accepted[engine] -= 1
            took = time.monotonic() - started
            self._mean_seconds = RECENT * self._mean_seconds + (1 - RECENT) * took
            self._somebody_left.set()

    def _refusal(self, engine: Engine, batch: bool) -> ApiError | None:
        if self.draining:
            return unavailable("the server is shutting down", "draining")
        if engine.status is Status.LOADING:
            return unavailable("the model is loading", "not_ready")
        if engine.status is Status.SILENT:
            return unavailable("the engine does not answer", "not_ready")
        if engine.status is Status.LOST:
            return unavailable("the engine crashed and is starting again", "engine_lost")
        slots = engine.facts["slots"]
        waiting = self._accepted[engine] - slots
        room = self.settings.max_queue
        if waiting < (room // BATCH_SHARE if batch else room):
            return None
        seconds = min(math.ceil(self._mean_seconds * (waiting + 1) / slots), MOST_RETRY)
        message = (
            f"{slots} streams are spoken, {self.settings.max_queue} wait; try again in {seconds} s"
        )
        return busy(message, "server_busy", seconds)

    def _numbers(self) -> Iterator[tuple[str, dict[str, float | None]]]:
        for engine in self.engines:
            yield (
                engine.name,
                {
                    "num_requests_running": engine.pulse.get("running", 0),
                    "num_requests_waiting": engine.pulse.get("waiting", 0),
                    "num_requests_accepted": self._accepted[engine],
                    "engine_ready": float(engine.status is Status.READY),
                    "gpu_memory_bytes": engine.pulse.get("gpu_bytes"),
                    "restarts": engine.restarts,
                },
            )


class Utterance:
    """One text, spoken for one client: a context manager that gives up what it holds."""

    def __init__(
        self, service: Service, engine: Engine, name: str, text: str, options: SpeechOptions
    ) -> None:
        """ApiError for options that the model does not have, or where there is no place."""
        self._service, self._engine = service, engine
        self._started = time.monotonic()
        model_rate = int(engine.facts["sample_rate"])
        self.order = options.order(name, text, engine.facts["voices"])
        self._speed = options.speed
        self._sound = Sound(options.response_format, model_rate, options.speed, options.sample_rate)
        self._heard = Heard(StreamStats(), model_rate)
        self._ticket: Ticket | None = None
        self.queue_seconds = 0.0
        self.left_out = LeftOut()  # once there is sound, or nothing to speak
        self.stats: dict[str, Any] | None = None  # once it is whole
        self._failure: str | None = None

    @property
    def rate(self) -> int:
        """Of the bytes, in Hz."""
        return self._sound.rate

    @property
    def seconds(self) -> float:
        """Of sound, once it is whole, as fast as it was asked for."""
        return float(self.stats["audio_seconds"]) / self._speed if self.stats else 0.0

    @property
    def ttfa_seconds(self) -> float | None:
        return self._heard.first_audible

    async def __aenter__(self) -> Self:
        try:
            self._ticket = self._engine.submit(self.order)
        except EngineLostError as error:
            self._sound.close()
            raise unavailable(str(error), "engine_lost") from None
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
        self._sound.close()
        took, name = time.monotonic() - self._started, self._engine.name
        self._service.metrics.hear(name, self._heard)
        if self.stats is None:
            slow = kind is not None and issubclass(kind, TimeoutError)
            reason = self._failure or ("client_slow" if slow else "client_gone")
            self._service.metrics.failed.labels(name, reason).inc()
            log.info("%s: %s after %.2f s", self.order.name, reason, took)
        else:
            log.info("%s: %.2f s of sound in %.2f s", self.order.name, self.seconds, took)
            self._service.metrics.finish(name, self._heard, self.stats, took)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Bytes of sound, none of them empty. ApiError if it fails."""
        assert self._ticket is not None
        try:
            while True:
                frame = await self._ticket.next()
                if frame.kind is Kind.STARTED:
                    begun = frame.json()
                    self.queue_seconds = begun["queue_seconds"]
                    self.left_out = LeftOut(begun["characters_left_out"], tuple(begun["left_out"]))
                elif frame.kind is Kind.AUDIO:
                    self._hear(frame.payload)
                    if data := await self._encode(self._sound.push, frame.payload):
                        yield data
                elif frame.kind is Kind.DONE:
                    if data := await self._encode(self._sound.finish):
                        yield data
                    told = {"ttfa_seconds": self.ttfa_seconds}
                    self.stats = frame.json() | told
                    return
        except StreamFailedError as error:
            raise self._failed(error.failure) from None
        except EngineLostError as error:
            self._failure = "engine_lost"
            raise unavailable(str(error), "engine_lost") from None

    def _failed(self, failure: Failure) -> ApiError:
        """How the engine's refusal is told, and counted."""
        self._failure = "invalid" if failure.mine else "failed"
        if not failure.mine:
            return failed(failure.message)
        if failure.code == NOTHING_TO_SPEAK:
            self._failure = failure.code
            self.left_out = LeftOut(failure.characters_left_out, tuple(failure.left_out))
        return invalid(failure.message, "input", failure.code)

    def _hear(self, pcm: bytes) -> None:
        now = time.monotonic() - self._started
        self._heard.arrivals.append(now)
        self._heard.samples.append(len(pcm) // 2)
        if self._heard.first_audible is None and first_audible(from_pcm16(pcm)) is not None:
            self._heard.first_audible = now

    async def _encode(self, work: Callable[..., bytes], *given: bytes) -> bytes:
        """In another thread where it is long; over when this returns, even if cancelled."""
        if not self._sound.heavy:
            return work(*given)
        done = asyncio.get_running_loop().run_in_executor(self._service.pool, work, *given)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])
            raise
