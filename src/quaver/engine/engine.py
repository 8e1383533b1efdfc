"""The engine: prompts in, frames out. The only decode loop there is.

A step makes one frame for every running stream. Streams join before a step and leave after one;
whoever reads a stream drives the steps, so one reader and many readers, offline and live, run the
same loop. The engine sees neither tokens nor text nor sound.

A GPU can work while the host does: the next step is launched before the last one's frames are
looked at. A stream that turns out to have ended has then made one frame more, which nobody gets.
There, a step of few streams is also shorter than one of many: whoever waits for a first sound is
given one of the first slots, and steps of those alone go before the others'.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from quaver.core.errors import InputError
from quaver.core.protocols import FrameModel, Prompt
from quaver.core.types import FinishReason, SamplingParams
from quaver.engine.cache import KVCache
from quaver.engine.guards import LoopGuard
from quaver.engine.keeping import Keeping
from quaver.engine.sampling import Sampler
from quaver.engine.steps import Steps
from quaver.engine.threads import StepThreads
from quaver.nn.sent import Fetched

PACK = 2048  # inputs of prompts that are read in one pass; a longer one has a pass of its own
# Who waits for a first sound is favoured while no more streams run: the others' steps are far
# shorter than their sound by then. Not tuned.
FEW = 128
FRONT = 4  # slots, the first, whose streams can have steps to themselves,
MOST_ALONE = 4  # and so many between two steps of all, which a first sound outlasts


@dataclass(frozen=True, slots=True)
class Job:
    """One stream to make."""

    prompt: Prompt
    sampling: SamplingParams
    seed: int
    max_frames: int
    hurry: int = 0  # its first frames, that somebody waits for


@dataclass(eq=False)
class FrameStream:
    """The frames of one job, as they are made: iterate to get them, each [codes_per_frame].

    Reading drives the engine. `finish_reason` is None until the stream has ended; frames that were
    made before can still be read then.
    """

    job: Job
    _engine: Engine
    finish_reason: FinishReason | None = None
    slot: int | None = None
    rank: float = 0.0
    waited: float = 0.0  # seconds, for a slot
    error: RuntimeError | None = None  # what it failed by
    launched: int = 0  # frames
    made: int = 0  # frames that have been delivered
    _ready: deque[Tensor] = field(default_factory=deque)
    _guard: LoopGuard = field(default_factory=LoopGuard)
    asked: float = field(default_factory=time.monotonic)

    def __iter__(self) -> Iterator[Tensor]:
        while (frame := self._next()) is not None:
            yield frame

    @property
    def drained(self) -> bool:
        """Whether the stream has ended and all its frames were taken."""
        return self.finish_reason is not None and not self._ready

    @property
    def lacks(self) -> bool:
        """Whether it may want more frames than were launched."""
        return self.launched < self.job.max_frames

    @property
    def hurries(self) -> bool:
        return self.lacks and self.launched < self.job.hurry

    def take(self, most: int) -> list[Tensor]:
        """Frames that are ready, without driving the engine; under its lock."""
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def cancel(self) -> None:
        """Stop now; the slot is free when this returns."""
        self._engine.finish(self, FinishReason.CANCELLED)

    def deliver(self, frame: Tensor, codes: Sequence[int]) -> FinishReason | None:
        """Take a frame [codes_per_frame] on the host; returns why the stream must end, if so."""
        self._ready.append(frame)
        self.made += 1
        if self._guard.push(codes):
            return FinishReason.REPETITION
        return FinishReason.LENGTH if self.made >= self.job.max_frames else None

    def _next(self) -> Tensor | None:
        while True:
            with self._engine.lock:
                if self._ready:
                    return self._ready.popleft()
                if self.error is not None:
                    raise self.error
                if self.finish_reason is not None:
                    return None
                self._engine.step()


class Engine:
    """Runs a model for up to `slots` streams at once; more wait their turn."""

    def __init__(
        self,
        model: FrameModel,
        *,
        slots: int,
        max_length: int,
        keeping: Keeping,
        hidden_dtype: torch.dtype,
        device: torch.device,
        ahead: bool = False,
        graphs: bool = False,
        threads: StepThreads | None = None,
    ) -> None:
        """`ahead` launches a step before the last one is looked at; `graphs` records steps, and
        draws in one launch, or traces layers on a CPU; `threads` is what engines of one model
        share, None if there is one."""
        self.lock = threading.RLock()
        self.threads = threads or StepThreads(device)
        self._model, self._ahead = model, ahead
        self._cache = KVCache(model.cache_spec, slots, max_length, keeping, device)
        self._sampler = Sampler(
            slots, model.choices, device, kernel=graphs and device.type == "cuda"
        )
        self._steps = Steps(model, self._cache, self._sampler, hidden_dtype, graphs)
        self._flight: _Flight | None = None
        self._begun = 0.0  # when the device turned to that
        # seconds, each of the last two steps of all, and of those of a few alone
        self._took = {False: (0.0, 0.0), True: (0.0, 0.0)}
        self._alone = 0  # steps since one of all
        self._streams: list[FrameStream | None] = [None] * slots
        self._waiting: deque[FrameStream] = deque()

    @property
    def slots(self) -> int:
        return len(self._streams)

    @property
    def running(self) -> int:
        """Streams that hold a slot."""
        return sum(stream is not None for stream in self._streams)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def cache_bytes(self) -> int:
        return self._cache.bytes

    def fit(self, job: Job) -> Job:
        """The job with no more frames than there is room for. InputError if there is for none."""
        longest = self._cache.max_length
        room = (longest - len(job.prompt.tokens)) // self._model.positions_per_frame
        room -= self._ahead  # for the frame that is launched before the last is known to be it
        if room < 1:
            raise InputError(
                f"the prompt has {len(job.prompt.tokens)} tokens and this engine holds {longest} a "
                "stream, speech included; shorten the text or the reference"
            )
        return replace(job, max_frames=min(job.max_frames, room))

    def submit(self, job: Job, rank: float = 0.0) -> FrameStream:
        """Queue a job: the lowest rank goes first, and of one rank whoever came first.

        InputError if its prompt leaves no room to speak.
        """
        stream = FrameStream(self.fit(job), self, rank=rank)
        with self.lock:
            insort(self._waiting, stream, key=lambda each: each.rank)
        return stream

    @torch.inference_mode()
    def record(self) -> None:
        """Record all steps, so that none is while streams run; while none does."""
        with self.lock, self.threads.used():
            self._steps.record()
            self._steps.record_prompts(PACK)

    @torch.inference_mode()
    def step(self, hold: bool = False) -> bool:
        """Let waiting streams in, then make one frame for every running one, or for a few who
        hurry. Returns whether frames that were looked at are of a step of all.

        Who runs waits while prompts are read: then those that one pass has no room for wait a step.
        `hold`: only look at what was launched ahead, and leave the device free until the next step.
        """
        with self.lock, self.threads.used():
            others = any(each is not None and each.launched for each in self._streams)
            while self._waiting and None in self._streams:
                self._admit()
                if others:
                    break
            landing = self._flight
            self._flight = None if hold and landing is not None else self._launch()
            if not self._ahead:
                landing, self._flight = self._flight, None
            if landing is None:
                self._begun = time.monotonic()
                return False
            self._land(landing)
            return not landing.alone

    def slack(self) -> float:
        """Seconds until the step that runs should be over, by the shorter of the last two; none
        where no step runs."""
        with self.lock:
            if self._flight is None or self._flight.made.over:
                return 0.0
            took = min(self._took[self._flight.alone])
            return max(0.0, self._begun + took - time.monotonic())

    def finish(self, stream: FrameStream, reason: FinishReason) -> None:
        """End a stream, running or waiting, and free what it holds."""
        with self.lock:
            if stream.finish_reason is not None:
                return
            stream.finish_reason = reason
            if stream.slot is None:
                self._waiting.remove(stream)
                return
            self._streams[stream.slot] = None
            self._cache.close(stream.slot)
            self._sampler.close(stream.slot)
            stream.slot = None

    def _admit(self) -> None:
        """Let waiting streams in, with as many prompts as are read in one pass."""
        admitted: list[FrameStream] = []
        room, running = PACK, self.running
        while self._waiting and None in self._streams:
            job = self._waiting[0].job
            room -= len(job.prompt.tokens)
            if room < 0 and admitted:
                break
            stream = self._waiting.popleft()
            if self._ahead and job.hurry and running >= FRONT:
                self._clear_front()
            slot = self._streams.index(None)
            self._streams[slot], stream.slot = stream, slot
            running += 1
            stream.waited = time.monotonic() - stream.asked
            self._cache.open(slot)
            self._sampler.open(slot, job.sampling, job.seed, job.prompt)
            admitted.append(stream)
        self._read(admitted)

    def _clear_front(self) -> None:
        """Move who does not hurry out of the first slots, as far as others are free."""
        for source, stream in enumerate(self._streams[:FRONT]):
            if stream is None or stream.hurries:
                continue
            if None not in self._streams[FRONT:]:
                return
            target = self._streams.index(None, FRONT)
            used = len(stream.job.prompt.tokens) + stream.launched * self._model.positions_per_frame
            self._cache.move(source, target, used)
            self._sampler.move(source, target)
            self._steps.move(source, target)
            self._streams[source], self._streams[target] = None, stream
            stream.slot = target

    def _read(self, streams: list[FrameStream]) -> None:
        """Read prompts in one pass. One that cannot be read, for want of memory perhaps, ends its
        own stream: nothing of the others has been touched. Of a device that has failed nothing can
        be had any more, by anybody."""
        slots = [(stream.slot, stream.job.prompt.tokens) for stream in streams]
        try:
            self._steps.prefill([(slot, tokens) for slot, tokens in slots if slot is not None])
        except torch.AcceleratorError:
            raise
        except RuntimeError as error:
            if len(streams) > 1:
                for stream in streams:
                    self._read([stream])
            else:
                streams[0].error = error
                self.finish(streams[0], FinishReason.CANCELLED)

    def _launch(self) -> _Flight | None:
        alone = self._hurried() if self._ahead else 0
        count = alone or max(
            (i + 1 for i, s in enumerate(self._streams) if s is not None), default=0
        )
        streams = tuple(self._streams[:count])
        if not any(stream is not None and stream.lacks for stream in streams):
            return None
        self._alone = self._alone + 1 if alone else 0
        each, longest = self._model.positions_per_frame, 0
        for stream in streams:
            if stream is not None:
                stream.launched += 1
                longest = max(longest, len(stream.job.prompt.tokens) + stream.launched * each)
        started = time.perf_counter()
        made = self._steps.launch(count, longest)
        self.threads.add(time.perf_counter() - started, count)
        return _Flight(made, streams, alone > 0)

    def _hurried(self) -> int:
        """Slots of a step for those alone who hurry; 0 if the next step is for all, as it is where
        more hurry than there are first slots."""
        if self._alone == MOST_ALONE or self.running > FEW:
            return 0
        hurry = [i for i, s in enumerate(self._streams) if s is not None and s.hurries]
        others = any(s is not None for s in self._streams[FRONT:])
        return hurry[-1] + 1 if hurry and hurry[-1] < FRONT and others else 0

    def _land(self, flight: _Flight) -> None:
        rows = flight.made.wait()
        now = time.monotonic()
        self._took[flight.alone] = (self._took[flight.alone][1], now - self._begun)
        self._begun = now
        frames = rows[:, :-1].unbind()
        for stream, frame, (*codes, stop) in zip(
            flight.streams, frames, rows.numpy().tolist(), strict=False
        ):
            if stream is None or stream.finish_reason is not None:
                continue
            reason = FinishReason.STOP if stop else stream.deliver(frame, codes)
            if reason is not None:
                self.finish(stream, reason)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A step that was launched, and who was in which slot."""

    made: Fetched  # as `Steps.launch` has it
    streams: tuple[FrameStream | None, ...]
    alone: bool  # while others, behind them, wait
