"""CPU threads: measured by step, the same speech with any number, nothing left set."""

import threading

import numpy as np
import pytest
import torch

from quaver.engine.threads import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PAIRS,
    SLOW_RUNS,
    WARM_UPS,
    StepThreads,
    cpu_threads,
)
from quaver.loading import load

CPU = torch.device("cpu")
TEXT = "Hello there."


@pytest.fixture(autouse=True)
def threads():
    """Four threads allowed, as on a machine with four cores; put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def steps(chosen, took, count, what=1):
    """Run `count` steps that take `took[number]`; returns the numbers that they had."""
    numbers = []
    for _ in range(count):
        with chosen.used():
            numbers.append(torch.get_num_threads())
            chosen.add(took[numbers[-1]], what)
    return numbers


@pytest.mark.parametrize(
    ("one", "four", "number", "trial"),
    [
        (1.0, 0.3, 4, [4, 1]),  # a large model on a quiet machine: clear at once
        (1.0, 0.75, 4, [4, 1] * PAIRS),  # a gain that a pair alone does not show
        (1.0, 0.9, 1, [4, 1] * PAIRS),  # too small a gain to spin for
        (1.0, 5.0, 1, [4, 1]),  # beside a busy process: all threads are tried for one step
    ],
)
def test_the_faster_number_is_taken(one, four, number, trial):
    chosen = StepThreads(CPU)
    numbers = steps(chosen, {1: one, 4: four}, WARM_UPS + len(trial) + 10)
    assert numbers == [1] * WARM_UPS + trial + [number] * 10
    assert chosen.number == number


def test_a_process_that_wants_the_cores_is_noticed():
    chosen = StepThreads(CPU)
    steps(chosen, {1: 1.0, 4: 0.3}, 20)
    assert chosen.number == 4
    numbers = steps(chosen, {1: 1.2, 4: 5.0}, 20)
    assert numbers == [4] * (SLOW_RUNS + 1) + [1] * (20 - SLOW_RUNS - 1)


def test_a_short_delay_changes_nothing():
    chosen = StepThreads(CPU)
    steps(chosen, {1: 1.0, 4: 0.3}, 20)
    for _ in range(50):
        assert steps(chosen, {4: 9.0}, SLOW_RUNS - 1) == [4] * (SLOW_RUNS - 1)
        assert steps(chosen, {4: 0.3}, 1) == [4]


def test_all_threads_are_tried_again_after_longer_and_longer_pauses():
    chosen = StepThreads(CPU)
    numbers = steps(chosen, {1: 1.0, 4: 5.0}, 8 * LONGEST_PAUSE)
    tried = [i for i, number in enumerate(numbers) if number == 4]
    pauses = np.diff(tried)
    assert pauses[0] == FIRST_PAUSE + 2
    assert (np.diff(pauses) >= 0).all() and pauses[-1] == LONGEST_PAUSE + 2
    assert len(tried) < 16
    steps(chosen, {1: 1.0, 4: 0.3}, LONGEST_PAUSE + 2)
    assert chosen.number == 4, "the cores are free again"


def test_steps_of_more_streams_are_not_compared_with_steps_of_fewer():
    chosen = StepThreads(CPU)
    steps(chosen, {1: 1.0}, WARM_UPS)
    steps(chosen, {4: 0.3}, 1, what=1)
    numbers = steps(chosen, {1: 8.0, 4: 7.9}, 2 * PAIRS + 3, what=8)
    assert numbers[: 1 + 2 * PAIRS] == [1, *[4, 1] * PAIRS]
    assert chosen.number == 1


@pytest.mark.parametrize("allowed", [1, 2])
def test_what_the_caller_allows_is_an_upper_bound(allowed):
    chosen = StepThreads(CPU)
    steps(chosen, {1: 1.0, 4: 0.3}, 10)
    torch.set_num_threads(allowed)
    assert max(steps(chosen, {1: 1.0, 2: 0.5, 4: 0.3}, 10)) == chosen.number == allowed


def test_a_gpu_has_one_thread_beside_it():
    chosen = StepThreads(torch.device("cuda"))
    assert set(steps(chosen, {1: 1.0, 4: 0.1}, 20)) == {1}


@pytest.mark.parametrize(("number", "inside"), [(1, 1), (3, 3), (4, 4), (9, 4), (None, 4)])
def test_threads_are_put_back_whatever_happens(number, inside):
    with pytest.raises(ValueError, match="spoilt"), cpu_threads(number):
        assert torch.get_num_threads() == inside
        raise ValueError("spoilt")
    assert torch.get_num_threads() == 4


def test_other_threads_of_python_keep_their_number():
    seen, entered, looked = [], threading.Event(), threading.Event()

    def look():
        torch.get_num_threads()  # torch sets a new thread up when it is first used there
        entered.set()
        looked.wait(60)
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=look)
    other.start()
    entered.wait(60)
    with cpu_threads(1):
        looked.set()
        other.join(60)
    assert seen == [4]


def test_a_loaded_model_leaves_the_process_as_it_was(tiny_checkpoint):
    voice = load(tiny_checkpoint, "fp32", "cpu", slots=1)
    assert torch.get_num_threads() == 4
    assert voice.info()["threads"] == 1, "nothing was measured yet"
    stream = voice.stream(TEXT, seed=1, max_seconds=1.0)
    inside = set()
    for _ in stream:
        inside.add(torch.get_num_threads())
    voice.generate(TEXT, seed=1, max_seconds=1.0)
    assert inside == {4} == {torch.get_num_threads()}
    assert voice.info()["threads"] in (1, 4)


@pytest.mark.parametrize("recipe", ["fp32", "bf16", "int8"])
def test_a_seed_gives_the_same_bits_with_any_number_of_threads(tiny_checkpoint, recipe):
    """Each step of one side gets another number, as trials may give it."""
    found = []
    for number in (1, 2, 4, None):
        voice = load(tiny_checkpoint, recipe, "cpu", slots=1)
        voice._engine.threads = Given(number)
        found.append(voice.generate(TEXT, seed=3, max_seconds=1.5).samples)
    assert len(found[0]) > 24_000
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


class Given:
    """Steps with a number that is given, or with 1 to 4 in turn."""

    def __init__(self, number):
        self.number, self._turn, self._given = number or 1, 0, number

    def used(self):
        self._turn += 1
        return cpu_threads(self._given or 1 + self._turn % 4)

    def add(self, seconds, what):
        pass


def test_the_codec_of_a_small_model_gets_one_thread_whatever_is_allowed(tiny_checkpoint):
    """Its convolutions make other last bits with another number."""
    voice, seen = load(tiny_checkpoint, "fp32", "cpu", slots=1), []
    streams = voice._voices._codec
    decode = streams.decode

    def watched(parts):
        seen.append(torch.get_num_threads())
        return decode(parts)

    streams.decode = watched
    voice.generate(TEXT, seed=1, max_seconds=0.5)
    assert set(seen) == {1}
