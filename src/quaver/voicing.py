"""Frames to samples for all streams of an engine.

Whoever waits for a voice drives the engine; after each step all groups of frames that are full are
decoded as one batch. Groups are small at first, so that sound starts early, and grow, since a codec
works better on more. On a GPU, which many listen to, they grow as far as the sound that a listener
has lasts until the next one is full. On a CPU they are always alike: the last bits of a sample hang
on what is decoded together there, and a seed gives the same bits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quaver.core.protocols import Codec, CodecStream, CodecStreams, Part
from quaver.engine.engine import FEW, Engine, FrameStream, Job
from quaver.engine.threads import cpu_threads

# Frames decoded together. Three are the first that give sound that is final.
RAMP = (3, 1, 1, 2, 4, 8)
LOW_LATENCY_RAMP = (2, 2, 1, 1, 2, 4, 8)
SPARE = 1.5  # a group may take so much longer than frames do by now
STALL = 0.1  # seconds that newcomers, their prompts and their own steps, may take in between
# Seconds before a step is over, by which the next must have been launched, and after which to look
# again, since a step may be shorter than those before. Neither was tuned on a GPU.
LEAD, GLANCE = 0.001, 0.001
FIRST_SOUND = 0.5  # frames' worth, at least, of a first group
# Frames' worth where frames take as long as they sound: who has little more than a frame's worth is
# decoded frame by frame for ever.
LASTING = 5.0
MOST_FIRST = 7  # frames, unless they begin later than others
BATCH = 32  # voices, which a codec decodes about as well together as more
CROWD = 2 * BATCH  # voices, from which on some begin later than others
RECENT, FORGOTTEN = 0.25, 0.06  # how much the last frame counts for the mean, and the longest


def first_group(low_latency: bool) -> int:
    """Frames of a first sound."""
    return (LOW_LATENCY_RAMP if low_latency else RAMP)[0]


def group(ahead: float, pace: float) -> int:
    """How many frames to wait for when a listener has sound for `ahead` seconds and a frame takes
    `pace`: a power of two, of which codecs see few shapes."""
    count = 1
    while count < RAMP[-1]:
        took = 2 * count * pace
        if max(SPARE * took, took + STALL) > ahead:
            break
        count *= 2
    return count


def opening(number: int, crowd: int, pace: float) -> int:
    """Frames of the first sound of the number-th voice, while a `crowd` waits for theirs and a
    frame takes `pace` of the time that it sounds.

    The first sound lasts until there is more. In a crowd some wait a few frames longer: neither
    the codec nor the step after that has all at once to do.
    """
    frames = RAMP[0]
    while frames < MOST_FIRST and frames - RAMP[0] + FIRST_SOUND < LASTING * pace**2:
        frames += 1
    parts = min(1 + crowd // CROWD, RAMP[-1] - frames + 1)
    return frames + number % parts


class Pace:
    """How long a frame of all running voices takes by now, in seconds."""

    def __init__(self, codec: Codec) -> None:
        self.sample_rate = codec.sample_rate
        self.frame = codec.samples_per_frame  # samples
        self.sounds = self.frame / self.sample_rate  # seconds
        self.seconds = self._mean = self._longest = 0.0
        self.begin()

    def begin(self) -> None:
        """Nobody waited until now."""
        self.now = self._since = time.monotonic()

    def tick(self, of_all: bool, few: bool) -> None:
        """A step is done, of all voices or of a few. Where few speak, the mean counts, and else the
        longest of late: whoever speaks to many can be late for many. Who has not asked for a step
        for long has not been waiting for it."""
        self.now = time.monotonic()
        if of_all:
            took = min(self.now - self._since, 2 * self.sounds)
            self._since = self.now
            self._mean += RECENT * (took - self._mean)
            self._longest = max(took, self._longest + FORGOTTEN * (took - self._longest))
        self.seconds = self._mean if few else self._longest


class Voice:
    """The samples of one job, as they are made: iterate to get what is ready, or None where nothing
    is until `Voices.advance` makes more. Close it when done."""

    def __init__(
        self,
        voices: Voices,
        frames: FrameStream,
        seed: int | None,
        low_latency: bool,
        live: bool,
        begins: bool,
        number: int,
    ) -> None:
        self.frames, self._seed, self._number = frames, seed, number
        self._voices, self._low_latency = voices, low_latency and begins
        self._codec: CodecStream | None = None  # once there is anything to decode
        self._live = live
        self._ramp = chain(LOW_LATENCY_RAMP if self._low_latency else RAMP, repeat(RAMP[-1]))
        self._wanted = next(self._ramp)
        # how many frames its first sound takes; no more than it must, where a listener has sound
        self._settled = not begins
        self._begun: float | None = None  # when its listener had the first sound
        self._given = 0  # samples
        self._group: list[Tensor] = []
        self._early = 0  # samples that were given out before they were final
        self._ended = False
        self._ready: deque[NDArray[np.float32]] = deque()

    def __iter__(self) -> Iterator[NDArray[np.float32] | None]:
        while not self.ended:
            yield self._ready.popleft() if self._ready else None

    def close(self) -> None:
        """Stop now; slot and place are free when this returns."""
        self._voices.close(self)

    @property
    def ended(self) -> bool:
        """Whether nothing is ready, nor will be."""
        return self._ended and not self._ready

    @property
    def begins(self) -> bool:
        """Whether the frame that is being made is the last that its first sound needs."""
        return self.waits and self.frames.made < self._wanted <= self.frames.launched

    @property
    def waits(self) -> bool:
        """Whether its listener has no sound yet."""
        return self._begun is None and not self._ended

    def release(self) -> None:
        """Give up slot and place; under the engine's lock."""
        self.frames.cancel()
        self._ended = True
        if self._codec is not None:
            self._codec.close()

    def settle(self, crowd: int, pace: float, soon: bool) -> None:
        """Decide how many frames the first sound takes, once it could be one; as for `opening`.
        `soon`: whether low latency is to be had, which lasts for one frame."""
        if self._settled or not self._live or self.frames.made < self._wanted:
            return
        self._settled = True
        self._low_latency = self._low_latency and soon and pace * SPARE <= 1
        if not self._low_latency:
            self._wanted = opening(self._number, crowd, pace)

    def due(self, codec: CodecStreams) -> Part | None:
        """What to decode now, if there is enough."""
        if self._ended:
            return None
        self._group += self.frames.take(self._wanted - len(self._group))
        last = self.frames.drained
        if not last and len(self._group) < self._wanted:
            return None
        if self._codec is None:
            self._codec = codec.open(self._seed)
        frames = torch.stack(self._group) if self._group else None
        if self._low_latency and not last:  # as if it ended here, which changes nothing
            return Part(self._codec, frames, last=True, keep=False)
        return Part(self._codec, frames, last)

    def take(self, samples: NDArray[np.float32], part: Part, pace: Pace) -> None:
        """What came of `due`."""
        frame = pace.frame
        if part.keep:
            samples, self._early = samples[self._early :], max(0, self._early - len(samples))
            self._group = []
        else:  # its frames are decoded again, with those that come next
            samples, self._early = samples[:frame], frame
        self._ready.append(samples)
        self._low_latency, self._ended = False, part.last and part.keep
        self._given += len(samples)
        if self._begun is None:
            self._begun = pace.now
        ahead = self._given / pace.sample_rate - (pace.now - self._begun)
        more = group(ahead, pace.seconds) if self._live else next(self._ramp)
        self._wanted = len(self._group) + more


class Voices:
    """All that are spoken by one engine through one codec."""

    def __init__(
        self, engine: Engine, codec: Codec, graphs: bool, codec_threads: int | None = None
    ) -> None:
        """`codec_threads`: CPU threads of the codec at most; None is what torch may use."""
        self._engine, self._pace, self._follows = engine, Pace(codec), graphs
        self._codec_threads = codec_threads
        self._codec = codec.streams(engine.slots, graphs)
        self._codec.prepare(RAMP[0])
        self._open: list[Voice] = []
        self._spoken = 0
        self._waited = False  # whether who has sound waited for a first sound of others

    def speak(
        self,
        job: Job,
        seed: int | None,
        low_latency: bool,
        live: bool,
        rank: float,
        begins: bool = True,
    ) -> Voice:
        """Start a voice; `seed` draws the codec's noise, None turns it off; `live` if somebody
        listens; `rank` as in `Engine.submit`; `begins` unless a listener has heard others before
        it."""
        frames = self._engine.submit(job, rank)
        with self._engine.lock:
            if not self._open:
                self._pace.begin()
            live = live and self._follows
            voice = Voice(self, frames, seed, low_latency, live, begins, self._spoken)
            self._open.append(voice)
            self._spoken += 1
        return voice

    def close(self, voice: Voice) -> None:
        with self._engine.lock:
            voice.release()
            if voice in self._open:
                self._open.remove(voice)

    def record(self) -> None:
        """Record all that engine and codec do, while nobody speaks."""
        with self._engine.lock:
            self._engine.record()
            firsts, groups = range(RAMP[0], RAMP[-1] + 1), {*RAMP[1:]}
            self._codec.record({*firsts, *(LOW_LATENCY_RAMP[0] + g for g in groups)}, groups)

    def patience(self) -> float:
        """Seconds that `advance` can wait for whoever may still come; ask again after them.

        Who comes while a frame is made is in the next one, unless that has been launched. Where
        few speak, it is launched no earlier than a device needs, to have no pause.
        """
        if not self._follows or self._engine.running > FEW:
            return 0.0
        return min(GLANCE, max(0.0, self._engine.slack() - LEAD))

    def advance(self) -> None:
        """Make a frame for every running voice, and decode what is enough."""
        with self._engine.lock:
            # A codec takes nearly twice as long beside the next frame, and only a first sound is
            # waited for.
            few = self._follows and self._engine.running <= FEW
            hold = few and any(each.begins for each in self._open)
            of_all = self._engine.step(hold=hold)
            crowd = sum(each.waits and each.frames.made > 0 for each in self._open)
            pace = self._pace.seconds / self._pace.sounds
            for each in self._open:
                each.settle(crowd, pace, few)
            # Others' groups would make it wait: they are decoded beside the next frame instead, and
            # never wait twice in a row.
            self._waited = hold and not self._waited
            asked = [each for each in self._open if each.waits or not self._waited]
            due = [(each, part) for each in asked if (part := each.due(self._codec))]
            with cpu_threads(self._codec_threads):
                decoded = self._codec.decode([part for _, part in due]) if due else []
            self._pace.tick(of_all, few)
            for (each, part), samples in zip(due, decoded, strict=True):
                each.take(samples, part, self._pace)
