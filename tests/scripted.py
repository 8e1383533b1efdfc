"""An engine process that does what the text says: the real worker, with a synthesizer that is none.

`python scripted.py SOCKET PLACE`. A text's first word is a command, its second how many chunks.
A model's name may end in its sample rate: `scripted@22050`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import string
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from quaver.core.errors import InputError
from quaver.core.types import AudioChunk, FinishReason, StreamStats
from quaver.families.orpheus.text import OrpheusText
from quaver.server.wire import Kind, Place, pack
from quaver.server.worker import Worker
from quaver.text.reading import default_mode, read_text

RATE, FRAME = 24000, 2048
STEP_SECONDS = 0.004
BURST = 40  # chunks a step
VOICES = ["ada", "ben", "cid"]
ALPHABET = string.ascii_letters + string.digits + " .,?!'\"-:;()%$&"  # as small models have
FAMILY = OrpheusText(
    SimpleNamespace(alphabet=ALPHABET, voices=VOICES, language=None, comfortable_chars=100)
)
UNLOADABLE, DEAD = "unloadable", "dead"  # models


def tone(seed: int, number: int, rate: int = RATE) -> np.ndarray:
    """One chunk, which tells its stream and its place."""
    start = number * FRAME
    hertz = 200 + seed % 100
    phase = 2 * np.pi * hertz * np.arange(start, start + FRAME) / rate
    return (0.5 * np.sin(phase)).astype(np.float32)


class Stream:
    """So many chunks, one a step while it has a slot."""

    def __init__(self, text: str, seed: int, rate: int) -> None:
        self.rate = rate
        command, _, rest = text.partition(" ")
        self.command = command.rstrip(".").lower()
        number = rest.split(" ")[0].rstrip(".")
        self.wanted = int(number) if number.isdigit() else 5
        self.stats = StreamStats(seed=seed, prompt_tokens=len(text))
        self.made = self.sent = 0
        self.ended = False

    def poll(self) -> AudioChunk | None:
        if self.made > self.wanted == self.sent:
            if self.command == "fail":
                raise RuntimeError("as it was told")
            if self.command == "die":
                os._exit(1)
        if self.sent < self.made:
            self.sent += 1
            self.stats.audio_seconds += FRAME / self.rate
            self.stats.frames += 1
            self.stats.tokens += 7
            return AudioChunk(tone(self.stats.seed, self.sent - 1, self.rate), self.rate)
        if self.command not in ("forever", "fail", "die") and self.made == self.wanted:
            self.ended = True
            self.stats.finish_reasons.append(FinishReason.STOP)
        return None

    def close(self) -> None:
        self.ended = True


class Synthesizer:
    """Runs the first `slots` streams that have not ended."""

    def __init__(self, slots: int, rate: int = RATE) -> None:
        self._slots, self._rate = slots, rate
        self._streams: list[Stream] = []

    def stream(
        self,
        text: str,
        *,
        seed: int,
        rank: Callable[[StreamStats], float],
        normalize: str,
        strict: bool,
        **_: Any,
    ) -> Stream:
        """Text is read as any model reads it; commands are in the text as it was sent."""
        if text.startswith("refuse"):
            raise InputError("the text cannot be read")
        reading = read_text(text, FAMILY, None, normalize, strict)
        if text.startswith("repeat"):  # what would be spoken
            raise InputError(reading.text)
        stream = Stream(text, seed, self._rate)
        stream.stats.characters_left_out = reading.left_out.count
        stream.stats.left_out = reading.left_out.names
        rank(stream.stats)
        self._streams.append(stream)
        return stream

    def patience(self) -> float:
        return 0.0

    def advance(self) -> None:
        time.sleep(STEP_SECONDS)
        for stream in self._running():
            endless = stream.command in ("forever", "die", "fail")
            if stream.command == "burst":
                stream.made = min(stream.made + BURST, stream.wanted)
            elif stream.command != "stuck" and (endless or stream.made < stream.wanted):
                stream.made += 1

    def state(self) -> dict[str, int]:
        running = len([*self._running()])
        return {"running": running, "waiting": len(self._streams) - running}

    def _running(self) -> Iterator[Stream]:
        self._streams = [stream for stream in self._streams if not stream.ended]
        yield from self._streams[: self._slots]


def main() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    line, place = socket.socket(fileno=int(sys.argv[1])), Place(**json.loads(sys.argv[2]))
    if place.model == UNLOADABLE:
        line.sendall(pack(Kind.UNUSABLE, payload={"message": "there is no such model"}))
        raise SystemExit(2)
    if place.model == DEAD:
        raise SystemExit(3)
    slots = place.slots or 2
    rate = int(place.model.partition("@")[2] or RATE)
    facts = {
        "model": place.model,
        "recipe": place.recipe or "fp32",
        "family": "scripted",
        "voices": VOICES,
        "tags": ["laugh"],
        "comfortable_chars": FAMILY.comfortable_chars,
        "normalize": default_mode(FAMILY),
        "sample_rate": rate,
        "slots": slots,
        "device": "cpu",
        "parameters": 1,
        "bytes": 4,
        "rtf_when_full": 0.1,
        "notes": [],
    }
    line.sendall(pack(Kind.READY, payload=facts))
    Worker(Synthesizer(slots, rate), line, False, lambda: None).run()


if __name__ == "__main__":
    main()
