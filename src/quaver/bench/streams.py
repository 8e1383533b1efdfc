"""Many streams at once, started together; what each listener would notice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quaver.audio.levels import first_audible
from quaver.core.types import AudioChunk, StreamStats

FORGIVEN = 0.1  # s: a chunk that is less late is heard as continuous, as others count it

if TYPE_CHECKING:
    from quaver.core.protocols import Synthesizer


@dataclass(slots=True)
class Heard:
    """One stream as it reached its listener: seconds since all were started."""

    stats: StreamStats
    sample_rate: int
    arrivals: list[float] = field(default_factory=list)  # of chunks
    samples: list[int] = field(default_factory=list)  # in each
    first_audible: float | None = None
    sound: list[NDArray[np.float32]] = field(default_factory=list)  # chunks, if they are kept

    @property
    def gaps(self) -> list[float]:
        """Seconds from each chunk to the next."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]

    @property
    def lateness(self) -> float:
        """Seconds that the latest chunk came after its listener, who plays from the first chunk on,
        had run out of sound; 0 or less where none was late."""
        if len(self.arrivals) < 2:
            return 0.0
        runs_out, worst = self.arrivals[0], float("-inf")
        for arrival, count in zip(self.arrivals[1:], self.samples, strict=False):
            runs_out += count / self.sample_rate
            worst = max(worst, arrival - runs_out)
            runs_out = max(runs_out, arrival)  # a listener waits, and then goes on
        return worst


@dataclass(frozen=True, slots=True)
class Run:
    """All streams of one run."""

    heard: tuple[Heard, ...]
    seconds: float  # from the start of all to the end of the last
    cpu_seconds: float  # of this process, all its threads

    @property
    def tokens(self) -> int:
        return sum(each.stats.tokens for each in self.heard)

    @property
    def audio_seconds(self) -> float:
        return sum(each.stats.audio_seconds for each in self.heard)


def run_streams(
    voice: Synthesizer,
    text: str,
    seconds: float | None,
    seeds: Sequence[int],
    low_latency: bool = False,
    keep: bool = False,
) -> Run:
    """Speak `text` once a seed, all at once, each for at most `seconds` of sound, or to its end.

    `keep` the sound of all streams in memory, 4 bytes a sample.
    """
    rate = int(voice.info()["sample_rate"])
    cpu, started = time.process_time(), time.perf_counter()
    options: dict[str, Any] = {"max_seconds": seconds, "low_latency": low_latency, "live": True}
    streams = [voice.stream(text, seed=seed, **options) for seed in seeds]
    heard = [Heard(stream.stats, rate) for stream in streams]
    reading = list(zip(streams, heard, strict=True))
    while reading:
        voice.advance()
        for stream, each in reading:
            while (chunk := stream.poll()) is not None:
                _hear(chunk, each, time.perf_counter() - started)
                if keep:
                    each.sound.append(chunk.samples)
        reading = [(stream, each) for stream, each in reading if not stream.ended]
    return Run(tuple(heard), time.perf_counter() - started, time.process_time() - cpu)


def _hear(chunk: AudioChunk, heard: Heard, now: float) -> None:
    heard.arrivals.append(now)
    heard.samples.append(len(chunk.samples))
    if heard.first_audible is None and first_audible(chunk.samples) is not None:
        heard.first_audible = now
