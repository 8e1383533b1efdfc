"""Text to sound: split, prompt, engine, codec, join. What `quaver.load` returns.

Live and offline are one path: `generate` drains `stream`.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from quaver.audio.decode import MAX_REFERENCE_SECONDS, read
from quaver.audio.join import SeamJoiner
from quaver.audio.levels import first_audible
from quaver.core.errors import InputError
from quaver.core.protocols import Codec, Reference, SpeechFamily
from quaver.core.types import (
    MAX_CHARS,
    Audio,
    AudioChunk,
    FinishReason,
    SamplingParams,
    StreamStats,
)
from quaver.engine.engine import Engine, Job
from quaver.engine.guards import SilenceGuard
from quaver.engine.threads import cpu_threads
from quaver.text.reading import AUTO, LeftOut, default_mode, read_text
from quaver.voicing import Voice, Voices, first_group

SEEDS = 2**63
MAX_SECONDS = 86_400.0  # of a segment
NO_VOICE = "none"


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """One call's options, settled."""

    voice: str | None
    seed: int
    sampling: SamplingParams
    reference: Reference | None
    low_latency: bool
    live: bool
    codec_noise: bool
    max_frames: int | None
    rank: Callable[[StreamStats], float] | None


class SpeechStream:
    """Chunks of one utterance, as they are made. `stats` fills as it is read.

    Close it, or leave its `with` block, to stop early: what it held is free at once.
    """

    def __init__(
        self,
        chunks: Generator[AudioChunk | None],
        stats: StreamStats,
        advance: Callable[[], None],
    ) -> None:
        """`chunks` gives None where nothing is ready until `advance` was called."""
        self._chunks, self._advance = chunks, advance
        self.stats = stats
        self.ended = False  # nothing more will come

    def __iter__(self) -> Iterator[AudioChunk]:
        return self

    def __next__(self) -> AudioChunk:
        started, before = time.monotonic(), self.stats.busy_seconds
        while (chunk := self.poll()) is None and not self.ended:
            self._advance()
        self.stats.busy_seconds = before + time.monotonic() - started
        if chunk is None:
            raise StopIteration
        if self.stats.ttfa_seconds is None and first_audible(chunk.samples) is not None:
            self.stats.ttfa_seconds = self.stats.busy_seconds
        return chunk

    def poll(self) -> AudioChunk | None:
        """The next chunk if there is one, at once; None if there is none yet, or `ended`.

        For one reader of many streams, who calls the synthesizer's `advance` in between. A segment
        of the text that ends is followed by the next when it is polled. Time is not counted.
        """
        try:
            return next(self._chunks)
        except StopIteration:
            self.ended = True
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.ended = True
        self._chunks.close()


class SpeechSynthesizer:
    """A speech family with an engine and a codec."""

    def __init__(
        self,
        family: SpeechFamily,
        engine: Engine,
        codec: Codec,
        sampling: SamplingParams,
        facts: dict[str, Any],
        graphs: bool = False,
        codec_threads: int | None = None,
    ) -> None:
        """`graphs` records what the codec does on a GPU. `codec_threads`: as for `Voices`."""
        self._family, self._engine, self._codec = family, engine, codec
        self._voices = Voices(engine, codec, graphs, codec_threads)
        self._codec_threads = codec_threads
        self._sampling, self._facts = sampling, facts

    def info(self) -> dict[str, Any]:
        """What is loaded: family, voices, sample rate, recipe, parameters, bytes. `threads` is how
        many CPU threads the next step gets; the first steps measure it."""
        return {
            "family": self._family.name,
            "voices": list(self._family.voices),
            "tags": list(self._family.tags),
            "comfortable_chars": self._family.comfortable_chars,
            "normalize": default_mode(self._family),
            "sample_rate": self._codec.sample_rate,
            "slots": self._engine.slots,
            "threads": self._engine.threads.number,
            **self._facts,
        }

    def state(self) -> dict[str, int]:
        """How many segments run, and how many wait for a slot."""
        return {"running": self._engine.running, "waiting": self._engine.waiting}

    def record(self) -> None:
        """On a GPU, record now what is done for any number of streams: seconds, which nobody then
        waits for."""
        self._voices.record()

    def advance(self) -> None:
        """Make a frame for every stream that runs. Who waits for a stream calls it by itself."""
        self._voices.advance()

    def patience(self) -> float:
        """Seconds that `advance` can wait for streams that may still be asked for; then ask again.
        None of those that run is later for it."""
        return self._voices.patience()

    def stream(
        self,
        text: str,
        *,
        voice: str | None = None,
        seed: int | None = None,
        reference: str | Path | None = None,
        reference_text: str | None = None,
        low_latency: bool = False,
        live: bool = False,
        codec_noise: bool = True,
        max_seconds: float | None = None,
        rank: Callable[[StreamStats], float] | None = None,
        normalize: str = AUTO,
        strict: bool = False,
        **sampling: float | None,
    ) -> SpeechStream:
        """Speak `text`. Bad arguments raise InputError here, before anything is made.

        It is queued at once, and spoken while any stream is read: close what you do not read.

        voice: one of `info()["voices"]`; None takes the first, "none" speaks without one.
        seed: the same seed gives the same speech; None draws one (it is in the stream's stats).
        reference, reference_text: a recording to clone and what it says; replaces the voice.
        low_latency: start one frame earlier, with a first 85 ms that are not final.
        live: somebody listens: on a GPU, let chunks be as long as the sound given so far lasts
            until the next one, so that many streams are heard without gaps.
        codec_noise: run the codec's noise blocks, seeded; False leaves them out.
        max_seconds: cut each segment of the text off at so much sound.
        rank: asked as each segment is queued; of those that wait for a slot the lowest goes first.
            None is 0.
        normalize: how text as people write it becomes words. "full" reads numbers, prices, dates,
            Markdown, addresses and abbreviations as words; "light" takes out Markdown, emoji and
            invisible characters; "off" changes nothing. "auto" is full for a model that declares
            its alphabet and light for one that reads all of Unicode.
        strict: refuse characters that the model cannot read, by code point. Otherwise they are left
            out and counted in the stream's stats. Text without a letter or digit that the model can
            read is always refused.
        sampling: fields of `SamplingParams` that replace the checkpoint's own.
        """
        started = time.monotonic()
        if len(text) > MAX_CHARS:
            raise InputError(
                f"the text has {len(text)} characters; at most {MAX_CHARS} are allowed"
            )
        if seed is not None and not 0 <= seed < SEEDS:
            raise InputError(f"the seed is {seed}; allowed is 0 to 2^63 - 1")
        cloning = reference is not None or reference_text is not None
        name = None if cloning else self._name(voice)
        # text that cannot be read is refused before a recording is, and before any sound
        reading = read_text(text, self._family, name, normalize, strict)
        cloned, unheard = self._reference(reference, reference_text, normalize, strict)
        options = SpeechOptions(
            voice=name,
            seed=secrets.randbits(31) if seed is None else seed,
            sampling=self._sampling.override(sampling),
            reference=cloned,
            low_latency=low_latency,
            live=live,
            codec_noise=codec_noise,
            max_frames=self._frames(max_seconds),
            rank=rank,
        )
        left_out = reading.left_out + unheard
        stats = StreamStats(
            seed=options.seed, characters_left_out=left_out.count, left_out=left_out.names
        )
        # every prompt is made first: what cannot be a prompt is refused before any sound
        jobs = [(self._job(s.text, options, i), s.pause) for i, s in enumerate(reading.segments)]
        stats.busy_seconds = time.monotonic() - started
        chunks = self._speak(jobs, options, stats)
        next(chunks)  # it is queued, and from here on it gives back what it holds when it is closed
        return SpeechStream(chunks, stats, self.advance)

    def generate(self, text: str, **options: Any) -> Audio:
        """The drained stream; arguments as for `stream`."""
        with self.stream(text, **options) as stream:
            chunks = [chunk.samples for chunk in stream]
        samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        return Audio(samples, self._codec.sample_rate, stream.stats)

    def _speak(
        self, jobs: list[tuple[Job, float]], options: SpeechOptions, stats: StreamStats
    ) -> Generator[AudioChunk | None]:
        """First nothing, once the first segment is queued; then all chunks."""
        rate = self._codec.sample_rate
        # Here and below, closing a stream closes what it is made of at once: waiting for the
        # garbage collector would hold the engine's slot for as long as a traceback lives.
        with closing(self._voice(jobs[0][0], options, stats)) as first:
            yield None
            with closing(self._joined(jobs, first, options, stats)) as pieces:
                for samples in pieces:
                    if samples is None:
                        yield None
                        continue
                    stats.audio_seconds += len(samples) / rate
                    yield AudioChunk(samples, rate)

    def _joined(
        self,
        jobs: list[tuple[Job, float]],
        first: Voice,
        options: SpeechOptions,
        stats: StreamStats,
    ) -> Generator[NDArray[np.float32] | None]:
        """Samples of all segments, without empty pieces; None where nothing is ready."""
        joiner = SeamJoiner(self._codec.sample_rate)
        for number, (job, pause) in enumerate(jobs):
            voice = first if number == 0 else self._voice(job, options, stats)
            with closing(self._segment(voice, stats)) as pieces:
                for samples in pieces:
                    if samples is None:
                        yield None
                    else:
                        yield from _some(joiner.push(samples))
            yield from _some(joiner.end_segment(pause))
        yield from _some(joiner.finish())

    def _segment(self, voice: Voice, stats: StreamStats) -> Generator[NDArray[np.float32] | None]:
        frames, guard = voice.frames, SilenceGuard(self._codec.sample_rate)
        heard = False
        stats.segments += 1
        stats.prompt_tokens += len(frames.job.prompt.tokens)
        try:
            for samples in voice:
                if samples is not None and not heard:
                    heard, stats.queue_seconds = True, stats.queue_seconds + frames.waited
                kept = None if samples is None else guard.push(samples)
                if samples is None or kept is None:
                    yield samples
                    continue
                # what comes after hangs on how much was made before this was heard
                self._engine.finish(frames, FinishReason.SILENCE)
                yield samples[:kept]
                break
            if frames.error is not None:
                raise frames.error
        finally:
            voice.close()
            reason = frames.finish_reason or FinishReason.CANCELLED
            stats.finish_reasons.append(reason)
            stats.frames += frames.made
            stats.tokens += frames.made * self._codec.codes_per_frame
            stats.tokens += reason is FinishReason.STOP

    def _voice(self, job: Job, options: SpeechOptions, stats: StreamStats) -> Voice:
        seed = job.seed if options.codec_noise else None
        rank = 0.0 if options.rank is None else options.rank(stats)
        low_latency, live, begins = options.low_latency, options.live, stats.segments == 0
        return self._voices.speak(job, seed, low_latency, live, rank, begins)

    def _job(self, text: str, options: SpeechOptions, index: int) -> Job:
        prompt = self._family.prompt(text, options.voice, options.reference)
        limit = self._family.max_frames(text)
        if options.max_frames is not None:
            limit = min(limit, options.max_frames)
        seed = (options.seed + index) % SEEDS
        hurry = first_group(options.low_latency) if options.live and index == 0 else 0
        return self._engine.fit(Job(prompt, options.sampling, seed, limit, hurry))

    def _frames(self, seconds: float | None) -> int | None:
        """The fewest frames that hold so much sound."""
        if seconds is None:
            return None
        if not 0 < seconds <= MAX_SECONDS:
            raise InputError(
                f"max_seconds is {seconds}; allowed is above 0, up to {MAX_SECONDS:,.0f}"
            )
        return math.ceil(seconds * self._codec.sample_rate / self._codec.samples_per_frame)

    def _name(self, voice: str | None) -> str | None:
        if voice == NO_VOICE:
            return None
        if voice is None:
            return next(iter(self._family.voices), None)
        return voice

    def _reference(
        self, audio: str | Path | None, text: str | None, normalize: str, strict: bool
    ) -> tuple[Reference | None, LeftOut]:
        """The voice to clone, and what was left out of the text it says."""
        if audio is None and text is None:
            return None, LeftOut()
        if audio is None or not (text and text.strip()):
            raise InputError("cloning needs both a reference recording and the text it says")
        try:
            reading = read_text(text, self._family, None, normalize, strict)
        except InputError as error:
            raise InputError(f"what the reference says cannot be read: {error}") from None
        samples = read(audio, self._codec.sample_rate, MAX_REFERENCE_SECONDS)
        with cpu_threads(self._codec_threads):
            frames = self._codec.encode(samples)
        return Reference(frames, reading.text), reading.left_out


def _some(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    if len(samples):
        yield samples
