"""The engine process: one thread that drives every stream in turn.

Between two steps it reads what the front says, so a stream that is cancelled is gone within one
frame. A front that is gone ends the process. It leaves signals to the front, which drains first.
"""

from __future__ import annotations

import gc
import json
import logging
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from quaver.audio.encode import pcm16
from quaver.core.errors import QuaverError, SilentTextError, UnreadableTextError
from quaver.server.wire import (
    INVALID_VALUE,
    NOTHING_TO_SPEAK,
    UNREADABLE,
    Failure,
    Frame,
    Frames,
    Kind,
    Order,
    Place,
    WireError,
    pack,
)

if TYPE_CHECKING:
    from quaver.core.types import StreamStats
    from quaver.synthesizer import SpeechStream, SpeechSynthesizer

log = logging.getLogger("quaver.worker")

READ = 1 << 16  # bytes
PULSE_SECONDS = 1.0
BATCH_AFTER = 1e9  # seconds: later than any listener's need
MOST_UNSENT = 1 << 26  # bytes: some seconds of a crowd


class Spoken:
    """A stream and who listens to it."""

    def __init__(self, order: Order) -> None:
        self.order, self.asked = order, time.monotonic()
        self.first: float | None = None  # when its first sound went out
        self.held = False
        self.stream: SpeechStream  # once it is queued

    def rank(self, stats: StreamStats) -> float:
        """When its listener, who plays from the first sound on, needs more: the first to need it
        goes first. A long text stands back while it is ahead, and is not late for a new one."""
        need = self.asked if self.first is None else self.first + stats.audio_seconds
        return need + (BATCH_AFTER if self.order.batch else 0.0)


class Outbox:
    """Sends what the front is told, in a thread what there is no room for at once: no step waits
    until the front has read it. The thread also says each second that the process runs."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._unsent = bytearray()
        self._sending = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send, name="outbox", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        with self._changed:
            if not (self._unsent or self._sending):
                with suppress(BlockingIOError):
                    data = data[self._line.send(data, socket.MSG_DONTWAIT) :]
            self._changed.wait_for(lambda: len(self._unsent) < MOST_UNSENT or self._closed)
            self._unsent += data
            self._changed.notify()

    def close(self) -> None:
        """Once the front is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify()
                self._changed.wait_for(lambda: self._unsent or self._closed, PULSE_SECONDS)
                if self._closed:
                    return
                data = self._unsent or bytearray(pack(Kind.ALIVE))
                self._unsent, self._sending = bytearray(), True
            try:
                self._line.sendall(data)
            except ConnectionError:  # as whoever reads from it finds too
                with self._changed:
                    self._closed = True


class Worker:
    """Streams of one synthesizer, for the front at the other end of a socket."""

    def __init__(
        self,
        synthesizer: SpeechSynthesizer,
        line: socket.socket,
        low_latency: bool,
        gpu_bytes: Callable[[], int | None],
    ) -> None:
        self._synthesizer, self._line = synthesizer, line
        self._low_latency, self._gpu_bytes = low_latency, gpu_bytes
        self._frames = Frames()
        self._spoken: dict[int, Spoken] = {}
        self._said = bytearray()
        self._outbox = Outbox(line)
        self._pulsed = 0.0

    def run(self) -> None:
        """Until the front is gone."""
        with suppress(ConnectionError):
            self._run()
        self._outbox.close()

    def _run(self) -> None:
        while self._listen():
            if self._wanted():
                self._synthesizer.advance()
                for number, spoken in [*self._spoken.items()]:
                    if not spoken.held:
                        self._tell(number, spoken)
            self._pulse()
            if self._said:
                self._outbox.put(bytes(self._said))
                self._said.clear()

    def _wanted(self) -> bool:
        return not all(spoken.held for spoken in self._spoken.values())

    def _listen(self) -> bool:
        """Do as the front says, for as long as there is nothing else to do. False at its end."""
        patience = PULSE_SECONDS
        while True:
            wanted = self._wanted()
            if wanted:
                patience = self._synthesizer.patience()
            if select.select([self._line], [], [], patience)[0]:
                data = self._line.recv(READ)
                if not data:
                    return False
                for frame in self._frames.feed(data):
                    self._obey(frame)
                patience = 0.0
            elif not wanted or patience == 0.0:
                return True

    def _obey(self, frame: Frame) -> None:
        number = frame.stream
        if frame.kind is Kind.SUBMIT:
            self._submit(number, Order(**frame.json()))
        elif (spoken := self._spoken.get(number)) is None:
            return  # it ended while this was on its way
        elif frame.kind is Kind.CANCEL:
            del self._spoken[number]
            spoken.stream.close()
        elif frame.kind in (Kind.HOLD, Kind.GO):
            spoken.held = frame.kind is Kind.HOLD
        else:
            raise WireError(f"{frame.kind.name} is not for an engine")

    def _submit(self, number: int, order: Order) -> None:
        spoken = Spoken(order)
        options: dict[str, Any] = {
            "voice": order.voice,
            "seed": order.seed,
            "max_seconds": order.max_seconds,
            "low_latency": self._low_latency,
            "live": True,
            "rank": spoken.rank,
            "normalize": order.normalize,
            "strict": order.strict,
            **order.sampling,
        }
        try:
            spoken.stream = self._synthesizer.stream(order.text, **options)
        except QuaverError as error:
            self._say(Kind.FAILED, number, asdict(_refusal(error)))
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            self._fail(number, spoken, error)
        else:
            self._spoken[number] = spoken

    def _tell(self, number: int, spoken: Spoken) -> None:
        """Send what there is of a stream."""
        stream = spoken.stream
        try:
            while (chunk := stream.poll()) is not None:
                if spoken.first is None:
                    spoken.first = time.monotonic()
                    self._say(Kind.STARTED, number, _begun(stream.stats))
                self._say(Kind.AUDIO, number, pcm16(chunk.samples).tobytes())
        except Exception as error:  # noqa: BLE001 - one request must not end the others
            del self._spoken[number]
            stream.close()
            self._fail(number, spoken, error)
            return
        if stream.ended:
            del self._spoken[number]
            stream.stats.busy_seconds = time.monotonic() - spoken.asked
            self._say(Kind.DONE, number, stream.stats.as_dict())

    def _fail(self, number: int, spoken: Spoken, error: Exception) -> None:
        log.error("%s failed", spoken.order.name, exc_info=error)
        failure = Failure(f"the engine failed: {type(error).__name__}", mine=False)
        self._say(Kind.FAILED, number, asdict(failure))

    def _pulse(self) -> None:
        now = time.monotonic()
        if now - self._pulsed >= PULSE_SECONDS:
            self._pulsed = now
            state = self._synthesizer.state()
            self._say(Kind.PULSE, 0, state | {"gpu_bytes": self._gpu_bytes()})

    def _say(self, kind: Kind, number: int, payload: bytes | dict[str, Any]) -> None:
        self._said += pack(kind, number, payload)


def _refusal(error: QuaverError) -> Failure:
    """What a request's own fault is called."""
    if isinstance(error, SilentTextError):
        return Failure(str(error), True, NOTHING_TO_SPEAK, error.left_out, error.names)
    code = UNREADABLE if isinstance(error, UnreadableTextError) else INVALID_VALUE
    return Failure(str(error), True, code)


def _begun(stats: StreamStats) -> dict[str, Any]:
    """What is known of a stream once it has sound."""
    return {
        "queue_seconds": stats.queue_seconds,
        "characters_left_out": stats.characters_left_out,
        "left_out": stats.left_out,
    }


def main() -> None:
    """`python -m quaver.server.worker SOCKET PLACE`: a file descriptor, and a `Place` as JSON."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    line = socket.socket(fileno=int(sys.argv[1]))
    place = Place(**json.loads(sys.argv[2]))
    logging.basicConfig(format="quaver: %(name)s: %(message)s")
    from quaver.server.starting import gpu_bytes, open_engine  # torch, once signals are settled

    try:
        synthesizer, facts = open_engine(place)
    except QuaverError as error:
        line.sendall(pack(Kind.UNUSABLE, payload={"message": str(error)}))
        raise SystemExit(2) from None
    line.sendall(pack(Kind.READY, payload=facts))
    gc.freeze()  # what is loaded stays, and to look through it would stop every stream
    Worker(synthesizer, line, place.low_latency, gpu_bytes).run()


if __name__ == "__main__":
    main()
