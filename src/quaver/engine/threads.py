"""How many CPU threads torch uses for a piece of work: measured while the work is done.

A small model's products are too short to share. Two threads may gain a third on a quiet machine,
and when another process wants a core, threads spin for each other and take up to ten times as long.
A large model's products gain nearly a core's speed for each thread. No rule by size knows the
machine or its other processes, so steps are timed with one thread and with all.

Products and attention make the same bits with any number of threads, so the choice may change
between two steps of a stream. Convolutions do not, so a codec's number is never measured: it would
make the last bits of a seed's speech depend on what else the machine did.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

WARM_UPS = 1  # runs before the first trial: the first of a process allocates and compiles
PAIRS = 3  # runs with all threads and with one, at most, until a trial is decided
# Threads must gain this much. On two cores the gain of a small model is within the noise of a step,
# and what it costs beside a busy process is not.
LEAST_GAIN, CLEAR_GAIN = 1.2, 1.5
SLOW_RUNS = 3  # in a row, slower than one thread was: another process wants the cores
FIRST_PAUSE, LONGEST_PAUSE = 256, 8192  # runs with one thread until all are tried again


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """A block in which this thread's torch work uses at most `number` CPU threads; None changes
    nothing.

    torch keeps the number for each thread of Python, so other threads go on as they were; one that
    first uses torch within the block begins with this number.
    """
    before = torch.get_num_threads()
    if number is None or number >= before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class StepThreads:
    """The number of threads for the steps of one model, 1 or all that torch may use.

    All are what `torch.get_num_threads` says outside: OMP_NUM_THREADS and torch.set_num_threads are
    upper bounds. A trial runs steps in pairs, one with all threads and one with one. A model that
    runs with all is tried again when its steps become slower than with one, and a model that runs
    with one is tried again after ever longer pauses.
    """

    def __init__(self, device: torch.device) -> None:
        self._fixed = device.type != "cpu"  # beside a GPU, there are only rows of a table to share
        self._most = 1
        self._number = 1
        self._wait = WARM_UPS  # runs until the next trial
        self._pause = FIRST_PAUSE
        self._what: Hashable = None  # the work that is being tried
        self._took: dict[int, list[float]] | None = None  # seconds by number, while a trial runs
        self._one = 0.0  # seconds of a run with one thread, by the last trial
        self._slow = 0  # runs in a row that were slower

    @property
    def number(self) -> int:
        """Threads that the next run gets."""
        return self._number

    @contextmanager
    def used(self) -> Iterator[None]:
        """A block of work with that number of threads. What it is to be judged by goes to `add`."""
        self._bound(torch.get_num_threads())
        with cpu_threads(self._number):
            yield

    @contextmanager
    def run(self, what: Hashable, work: float) -> Iterator[None]:
        """A block that is judged as a whole: it takes time in proportion to `work`."""
        with self.used():
            started = time.perf_counter()
            yield
            self.add((time.perf_counter() - started) / work, what)

    def add(self, seconds: float, what: Hashable) -> None:
        """Take the duration of a run with `number` threads, and choose the next number. Only runs
        of the same `what` are compared."""
        if self._most == 1:
            return
        if self._took is not None:
            self._try(seconds, what)
        elif self._number > 1:
            self._slow = self._slow + 1 if seconds > self._one else 0
            if self._slow == SLOW_RUNS:
                self._begin(what)
        else:
            self._wait -= 1
            if self._wait <= 0:
                self._begin(what)

    def _bound(self, allowed: int) -> None:
        """Begin anew when the caller allows more or fewer threads than before."""
        most = 1 if self._fixed else allowed
        if most != self._most:
            self._most, self._number, self._took = most, 1, None
            self._wait, self._pause = WARM_UPS, FIRST_PAUSE

    def _begin(self, what: Hashable) -> None:
        self._took, self._what, self._slow = {self._most: [], 1: []}, what, 0
        self._number = self._most

    def _try(self, seconds: float, what: Hashable) -> None:
        assert self._took is not None
        if what != self._what:  # other work: what was timed before is not comparable
            self._begin(what)
            return
        self._took[self._number].append(seconds)
        if self._number > 1:
            self._number = 1
            return
        gain = median(self._took[1]) / median(self._took[self._most])
        decided = gain < 1 or gain > CLEAR_GAIN or len(self._took[1]) == PAIRS
        if not decided:
            self._number = self._most
            return
        self._one, self._took = median(self._took[1]), None
        if gain >= LEAST_GAIN:
            self._number, self._pause = self._most, FIRST_PAUSE
            return
        self._wait, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
