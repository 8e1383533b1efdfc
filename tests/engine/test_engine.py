"""Streams that share an engine are as each alone, and what leaves frees all it held."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quaver.core.errors import InputError
from quaver.core.protocols import CacheSpec, Choose, Frame, FrameModel, KVStore, Prompt
from quaver.core.types import FinishReason, SamplingParams
from quaver.engine.cache import View
from quaver.engine.engine import FRONT, MOST_ALONE, Engine, FrameStream, Job
from quaver.engine.guards import LoopGuard, SilenceGuard
from quaver.engine.keeping import DenseKeeping, keeping
from quaver.engine.steps import COUNT_STEP, LEAST_PROMPT, _count
from quaver.families.orpheus.model import Orpheus
from quaver.loading.orpheus import load_orpheus
from quaver.nn.sent import Fetched
from quaver.precision import Format, find_recipe
from shapes import Shapes

LIVELY = SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.0)
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0)
FORGETFUL = SamplingParams(temperature=1.0, top_p=0.9, repetition_penalty=2.0, repetition_window=5)
STATES = 997


class HashModel:
    """Every choice hangs on every token before it: its state is a sum over the whole cache.

    All numbers are whole, so results are exact whatever is batched or padded.
    """

    choices, positions_per_frame, hidden_size, max_positions = (9, 8), 2, 1, 1000
    cache_spec = CacheSpec(layers=1, kv_heads=1, head_dim=1)

    def __init__(self, stop_bias: float = -2.0) -> None:
        random = np.random.default_rng(0)
        self._logits = torch.from_numpy(random.normal(0, 1, (STATES, 9))).float()
        self._logits[:, 8] += stop_bias

    def _read(self, numbers: Tensor, store: KVStore) -> Tensor:
        """Numbers [n, t] into the cache -> the state after the last, [n, 1]."""
        _, values, mask = self._keep(numbers, store)
        store.advance()
        seen = torch.where(mask[:, 0, -1], values[:, 0, :, 0], 0.0)
        return seen.sum(dim=-1, keepdim=True) % STATES

    def _keep(self, numbers: Tensor, store: KVStore) -> tuple[Tensor, Tensor, Tensor]:
        keys = (numbers * (store.positions + 1) ** 2 % STATES).double()[:, None, :, None]
        assert isinstance(store, View)
        return store.update(0, keys, keys)

    def embedded(self, prompt: Tensor) -> Tensor:
        return prompt

    def prefill(self, embedded: Tensor, store: KVStore) -> Tensor:
        _, values, mask = self._keep(embedded, store)
        return torch.where(mask[:, 0], values[:, 0, None, :, 0], 0.0).sum(-1)[..., None] % STATES

    def frame(self, hidden: Tensor, store: KVStore, choose: Choose) -> Frame:
        codes = []
        for position, count in enumerate(self.choices):
            codes.append(choose(position, self._logits[hidden[:, 0].long(), :count]))
            hidden = self._read(codes[-1][:, None] + 10 * position + 1, store)
        return Frame(torch.stack(codes, dim=1), codes[0] == 8, hidden)


class StuckModel(HashModel):
    """Says the same `period` frames for ever."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self._period, self._made = period, 0

    def frame(self, hidden: Tensor, store: KVStore, choose: Choose) -> Frame:
        self._made += 1
        codes = torch.tensor([[self._made % self._period % 8, self._made % self._period // 8]])
        return Frame(codes, torch.zeros(1, dtype=torch.bool), hidden)


def make_engine(
    model: FrameModel, slots: int = 3, max_length: int = 200, ahead: bool = False
) -> Engine:
    return Engine(
        model,
        slots=slots,
        max_length=max_length,
        keeping=DenseKeeping(torch.float64),
        hidden_dtype=torch.float64,
        device=torch.device("cpu"),
        ahead=ahead,
    )


def make_job(seed: int, length: int = 5, frames: int = 12, sampling=LIVELY, hurry: int = 0) -> Job:
    tokens = np.random.default_rng(seed).integers(1, 50, length).tolist()
    return Job(Prompt(tuple(tokens)), sampling, seed, frames, hurry)


def as_lists(frames: Sequence[Tensor]) -> list[list[int]]:
    return [frame.tolist() for frame in frames]


def alone(job: Job, model: FrameModel | None = None) -> tuple[list[list[int]], FinishReason]:
    stream = make_engine(model or HashModel(), slots=1).submit(job)
    frames = as_lists(list(stream))
    return frames, stream.finish_reason


def assert_idle(engine: Engine) -> None:
    assert (engine.running, engine.waiting) == (0, 0)
    assert engine._cache.active.sum() == 0
    assert engine._cache.lengths.sum() == 0


@pytest.mark.parametrize("ahead", [False, True])
def test_who_runs_waits_for_one_pass_of_prompts_at_a_time(monkeypatch, ahead):
    monkeypatch.setattr("quaver.engine.engine.PACK", 25)
    engine = make_engine(HashModel(), slots=8, ahead=ahead)
    jobs = [make_job(seed, length) for seed, length in enumerate((20, 20, 10, 10, 40, 10, 10, 10))]
    streams = [engine.submit(job) for job in jobs[:2]]
    engine.step()
    assert engine.running == 2  # nobody ran
    streams += [engine.submit(job) for job in jobs[2:]]
    running = []
    for _ in range(4):
        engine.step()
        running.append(engine.running)
    assert running == [4, 5, 7, 8]  # one that is longer than a pass has its own
    for stream, job in zip(streams, jobs, strict=True):
        assert as_lists(list(stream)) == alone(job)[0]
    assert_idle(engine)


def test_a_stream_hangs_on_all_of_its_prompt_its_seed_and_its_sampling():
    told = {str(alone(make_job(seed, length))[0]) for seed in range(3) for length in (4, 5, 90)}
    assert len(told) == 9
    job = make_job(0)
    changed = Prompt((job.prompt.tokens[0] + 1, *job.prompt.tokens[1:]))
    assert alone(Job(changed, LIVELY, 0, 12))[0] != alone(job)[0]
    assert alone(Job(job.prompt, LIVELY, 1, 12))[0] != alone(job)[0]
    assert alone(Job(job.prompt, GREEDY, 0, 12))[0] != alone(job)[0]


@pytest.mark.parametrize("ahead", [False, True])
def test_streams_together_are_as_each_alone(ahead):
    jobs = [make_job(seed, 1 + 13 * seed % 70, frames=4 + 5 * seed % 60) for seed in range(9)]
    jobs += [make_job(9, sampling=GREEDY)]
    engine = make_engine(HashModel(stop_bias=-1.0), ahead=ahead)
    streams = [engine.submit(job) for job in jobs]
    for job, stream in zip(jobs, streams, strict=True):
        frames, reason = alone(job, HashModel(stop_bias=-1.0))
        assert as_lists(list(stream)) == frames
        assert stream.finish_reason is reason
        assert stream.made == len(frames)
    assert {s.finish_reason for s in streams} == {FinishReason.STOP, FinishReason.LENGTH}
    assert_idle(engine)


def test_the_frame_limit_is_kept():
    frames, reason = alone(make_job(1, frames=7), HashModel(stop_bias=-99.0))
    assert (len(frames), reason) == (7, FinishReason.LENGTH)


def test_the_cache_ends_a_stream_too():
    engine = make_engine(HashModel(stop_bias=-99.0), max_length=25)
    stream = engine.submit(make_job(1, length=6, frames=500))
    assert len(list(stream)) == (25 - 6) // 2
    assert stream.finish_reason is FinishReason.LENGTH
    full = engine.submit(make_job(1, length=23, frames=500))
    assert len(list(full)) == 1


def test_a_frame_launched_ahead_has_room_and_no_listener():
    model = HashModel(stop_bias=-99.0)
    engine = make_engine(model, max_length=25, ahead=True)
    stream = engine.submit(make_job(1, length=6, frames=500))
    other = engine.submit(make_job(2, length=2, frames=500))  # goes on for longer
    frames = as_lists(list(stream))
    assert len(frames) == (25 - 6) // 2 - 1
    assert stream.launched == len(frames) + 1
    assert frames == alone(stream.job, model)[0]
    assert as_lists(list(other)) == alone(other.job, model)[0]
    assert_idle(engine)


def test_no_frame_is_launched_that_nobody_can_want():
    engine = make_engine(HashModel(stop_bias=-99.0), ahead=True)
    stream = engine.submit(make_job(1, frames=5))
    assert len(list(stream)) == stream.launched == 5
    assert_idle(engine)


def test_a_step_ahead_is_launched_before_the_last_is_looked_at():
    engine = make_engine(HashModel(stop_bias=-99.0), ahead=True)
    stream = engine.submit(make_job(1))
    engine.step()
    assert (stream.launched, stream.made) == (1, 0)
    engine.step()
    assert (stream.launched, stream.made) == (2, 1)


def test_a_step_that_holds_leaves_nothing_in_flight():
    engine = make_engine(HashModel(stop_bias=-99.0), ahead=True)
    stream = engine.submit(make_job(1))
    seen = []
    for hold in (True, True, False, True):  # where nothing is in flight there is nothing to look at
        engine.step(hold=hold)
        seen.append((stream.launched, stream.made))
    assert seen == [(1, 0), (1, 1), (2, 1), (2, 2)]


def test_who_hurries_goes_before_others():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=12, ahead=True)
    others = [engine.submit(make_job(seed, frames=20)) for seed in range(6)]
    for _ in range(3):
        engine.step()
    newcomer = engine.submit(make_job(9, frames=20, hurry=2))
    before = [stream.launched for stream in others]
    steps = 0
    while newcomer.made < 2:
        engine.step()
        steps += 1
    assert steps == 3  # the first still looks at what was launched for the others
    # one step was launched after its two, and is of all
    assert [stream.launched for stream in others] == [count + 1 for count in before]
    assert newcomer.launched == 3
    assert newcomer.slot < FRONT <= min(stream.slot for stream in others)
    for stream in (newcomer, *others):
        assert as_lists(list(stream)) == alone(stream.job, HashModel(stop_bias=-99.0))[0]
    assert_idle(engine)


def test_nobody_hurries_past_others_for_ever():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=12, ahead=True)
    others = [engine.submit(make_job(seed, frames=60)) for seed in range(6)]
    seen, hurrying = [], []
    for seed in range(40):
        hurrying.append(engine.submit(make_job(seed, frames=3, hurry=3)))
        engine.step()
        seen.append(others[0].launched)
    longest = max(seen.count(launched) for launched in set(seen))
    assert longest == MOST_ALONE + 1
    for stream in (*hurrying, *others):
        assert as_lists(list(stream)) == alone(stream.job, HashModel(stop_bias=-99.0))[0]
    assert_idle(engine)


def test_where_many_hurry_nobody_goes_first():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=9, ahead=True)
    streams = [engine.submit(make_job(seed, frames=20, hurry=3)) for seed in range(9)]
    for count in range(1, 6):
        engine.step()
        assert [stream.launched for stream in streams] == [count] * 9


@pytest.mark.parametrize("ahead", [False, True])
def test_one_who_hurries_stays_where_it_is_while_few_run(ahead):
    engine = make_engine(HashModel(stop_bias=-99.0), slots=8, ahead=ahead)
    first = engine.submit(make_job(0, frames=20, hurry=2))
    for _ in range(4):
        engine.step()
    second = engine.submit(make_job(1, frames=20, hurry=2))
    launched = first.launched
    engine.step()
    assert (first.slot, second.slot, first.launched) == (0, 1, launched + 1)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Event:
    """Of a device whose step is done 0.03 s after it is waited for."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.happened = clock, False

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.clock.now += 0.03
        self.happened = True


def test_slack_is_what_a_step_in_flight_should_still_take(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    engine = make_engine(HashModel(stop_bias=-99.0), ahead=True)
    launch = engine._steps.launch
    monkeypatch.setattr(
        engine._steps, "launch", lambda *shape: Fetched(launch(*shape).host, Event(clock))
    )
    stream = engine.submit(make_job(1))
    assert engine.slack() == 0.0  # nothing runs
    engine.step()
    assert engine.slack() == 0.0  # nobody knows how long it takes
    for _ in range(3):
        engine.step()
    assert engine.slack() == pytest.approx(0.03)
    clock.now += 0.005
    assert engine.slack() == pytest.approx(0.025)
    clock.now += 0.5  # later than it ever was
    assert engine.slack() == 0.0
    clock.now -= 0.5
    engine._flight.made.done.happened = True  # sooner than those before
    assert engine.slack() == 0.0
    engine.step(hold=True)
    assert engine.slack() == 0.0  # nothing was launched
    stream.cancel()


def test_a_prompt_without_room_for_speech_is_refused():
    engine = make_engine(HashModel(), max_length=25)
    with pytest.raises(InputError, match="24 tokens and this engine holds 25"):
        engine.submit(make_job(1, length=24))
    assert_idle(engine)


def test_a_model_may_stop_before_its_first_frame():
    assert alone(make_job(1), HashModel(stop_bias=99.0)) == ([], FinishReason.STOP)


def test_waiting_streams_are_let_in_in_order():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=2)
    streams = [engine.submit(make_job(seed, frames=3)) for seed in range(6)]
    assert (engine.running, engine.waiting) == (0, 6)
    entered = []
    while engine.running or engine.waiting:
        engine.step()
        entered += [i for i, s in enumerate(streams) if s.made and i not in entered]
        assert engine.running <= 2
    assert entered == [*range(6)]


def test_cancelling_frees_the_slot_at_once_and_leaves_others_alone():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=2)
    jobs = [make_job(seed, length=30, frames=20) for seed in range(3)]
    gone, stays, next_ = (engine.submit(job) for job in jobs)
    for _ in range(4):
        engine.step()
    assert (engine.running, engine.waiting) == (2, 1)
    gone.cancel()
    assert (engine.running, engine.waiting) == (1, 1)
    assert engine._cache.lengths[0] == engine._cache.active[0] == 0
    assert gone.slot is None
    assert as_lists(list(gone)) == alone(jobs[0], HashModel(stop_bias=-99.0))[0][:4]
    assert gone.finish_reason is FinishReason.CANCELLED
    engine.step()
    assert next_.slot == 0
    for job, stream in ((jobs[1], stays), (jobs[2], next_)):
        assert as_lists(list(stream)) == alone(job, HashModel(stop_bias=-99.0))[0]
    assert_idle(engine)


def test_a_waiting_stream_can_be_cancelled():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=1)
    first, second, third = (engine.submit(make_job(seed)) for seed in range(3))
    second.cancel()
    second.cancel()
    assert (engine.waiting, list(second)) == (2, [])
    assert as_lists(list(third)) == alone(make_job(2), HashModel(stop_bias=-99.0))[0]
    assert len(list(first)) == 12
    assert (first.finish_reason, second.finish_reason) == ("length", "cancelled")
    assert_idle(engine)


def test_cancelling_what_has_ended_changes_nothing():
    engine = make_engine(HashModel(stop_bias=-99.0), slots=1)
    ended = engine.submit(make_job(0))
    list(ended)
    follower = engine.submit(make_job(1))
    engine.step()
    ended.cancel()
    assert ended.finish_reason is FinishReason.LENGTH
    assert engine.running == 1
    assert len(list(follower)) == 12


@pytest.mark.parametrize(("period", "frames"), [(1, 24), (5, 24), (12, 36), (24, 72)])
def test_a_model_in_a_loop_is_stopped(period, frames):
    said, reason = alone(make_job(0, frames=90), StuckModel(period))
    assert reason is FinishReason.REPETITION
    assert len(said) == frames


def test_a_loop_longer_than_the_guards_is_let_go():
    said, reason = alone(make_job(0, frames=90), StuckModel(25))
    assert (len(said), reason) == (90, FinishReason.LENGTH)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 6), st.integers(2, 4))
def test_the_guard_trips_exactly_when_the_tail_has_repeated(head, period, repeats):
    guard = LoopGuard(longest=6, repeats=repeats, shortest=8)
    frames = [(7, i) for i in head] + [(i % period,) for i in range(40)]
    for count, frame in enumerate(frames, 1):
        heard = frames[:count]
        spans = [(p, max(repeats * p, 8)) for p in range(1, 7)]
        expected = any(count >= span and heard[-span:-p] == heard[-span + p :] for p, span in spans)
        assert guard.push(frame) == expected


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 14)), min_size=1, max_size=12),
    st.lists(st.integers(1, 25), min_size=1, max_size=40),
)
def test_silence_trips_where_it_has_lasted_wherever_chunks_end(stretches, chunks):
    guard, limit = SilenceGuard(10, seconds=1.0), 10
    loud = [sound for sound, count in stretches for _ in range(count)]
    ends = [n for n in range(limit, len(loud) + 1) if not any(loud[n - limit : n])]
    expected = ends[0] if ends else None
    samples, place = np.where(loud, -0.5, 0.0005).astype(np.float32), 0
    for count in chunks:
        chunk = samples[place : place + count]
        kept = guard.push(chunk)
        if expected is not None and expected <= place + len(chunk):
            assert kept == expected - place
            return
        assert kept is None
        place += len(chunk)


@pytest.mark.parametrize("ahead", [False, True])
def test_threads_read_their_own_streams(ahead):
    engine = make_engine(HashModel(stop_bias=-99.0), slots=3, ahead=ahead)
    jobs = [make_job(seed, frames=15 + seed) for seed in range(8)]
    streams = [engine.submit(job) for job in jobs]
    heard: dict[int, list[list[int]]] = {}
    barrier = threading.Barrier(len(jobs))

    def read(index: int) -> None:
        barrier.wait()
        heard[index] = as_lists(list(streams[index]))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, job in enumerate(jobs):
        assert heard[index] == alone(job, HashModel(stop_bias=-99.0))[0]
    assert_idle(engine)


actions = st.one_of(
    st.tuples(
        st.just("submit"),
        st.integers(0, 30),
        st.integers(1, 80),
        st.integers(1, 15),
        st.sampled_from([LIVELY, GREEDY, FORGETFUL]),
        st.integers(0, 3),
    ),
    st.tuples(st.just("step"), st.booleans()),
    st.tuples(st.just("read"), st.integers(0, 50)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
)


@settings(max_examples=60)
@given(st.lists(actions, max_size=40), st.sampled_from([1, 2, 3, 4, 7, 9]), st.booleans())
def test_no_frame_is_lost_doubled_or_mixed(plan, slots, ahead):
    engine = make_engine(HashModel(), slots=slots, ahead=ahead)
    streams: list[FrameStream] = []
    heard: list[list[list[int]]] = []
    cancelled: set[int] = set()
    for action, *details in plan:
        if action == "submit":
            streams.append(engine.submit(make_job(*details)))
            heard.append([])
        elif action == "step":
            engine.step(hold=details[0])
        elif streams:
            index = details[0] % len(streams)
            if action == "cancel":
                if streams[index].finish_reason is None:
                    cancelled.add(index)
                streams[index].cancel()
                assert streams[index].slot is None
            elif (frame := next(iter(streams[index]), None)) is not None:
                heard[index].append(frame.tolist())
        unfinished = sum(stream.finish_reason is None for stream in streams)
        assert engine.running + engine.waiting == unfinished
        held = [stream.slot for stream in streams if stream.slot is not None]
        assert len(set(held)) == len(held) == engine.running
    for index, stream in enumerate(streams):
        heard[index] += as_lists(list(stream))
        frames, reason = alone(stream.job)
        if index in cancelled:
            assert heard[index] == frames[: stream.made]
            assert stream.finish_reason is FinishReason.CANCELLED
        else:
            assert (heard[index], stream.finish_reason) == (frames, reason)
    assert_idle(engine)


# The same with a real model, whose attention reads the cache's padding too, under a mask.


@pytest.fixture(scope="module")
def orpheus(device, tiny_checkpoint) -> Orpheus:
    return load_orpheus(tiny_checkpoint, "tiny", find_recipe("fp32"), device)


def orpheus_engine(
    model: Orpheus, slots: int = 3, max_length: int = 400, graphs: bool = False
) -> Engine:
    return Engine(
        model,
        slots=slots,
        max_length=max_length,
        keeping=DenseKeeping(torch.float32),
        hidden_dtype=torch.float32,
        device=model.embed.weight.device,
        ahead=graphs,
        graphs=graphs,
    )


def orpheus_job(seed: int) -> Job:
    sampling = SamplingParams(temperature=0.8 + 0.1 * (seed % 3), repetition_window=seed % 2 * 20)
    return make_job(seed, length=2 + 37 * seed % 90, frames=6 + 7 * seed % 25, sampling=sampling)


@pytest.mark.parametrize("graphs", [False, True])
def test_orpheus_streams_that_join_and_leave_are_as_each_alone(orpheus, graphs):
    jobs = [orpheus_job(seed) for seed in range(8)]
    expected = [as_lists(list(orpheus_engine(orpheus, 1).submit(job))) for job in jobs]
    assert all(a != b for a, b in pairwise(expected))
    engine = orpheus_engine(orpheus, graphs=graphs)
    random = np.random.default_rng(0)
    waiting, streams = [*range(8)], {}
    while waiting or engine.running or engine.waiting:
        if waiting and random.random() < 0.3:
            index = waiting.pop()
            streams[index] = engine.submit(jobs[index])
        if random.random() < 0.1 and 3 in streams:
            streams[3].cancel()
        engine.step()
    for index, frames in enumerate(expected):
        assert as_lists(list(streams[index])) == frames[: streams[index].made]
        assert streams[index].made == len(frames) or index == 3
    assert_idle(engine)


@pytest.mark.parametrize("kv", ["fp32", "int8", "fp8"])
def test_a_stream_that_is_moved_goes_on(orpheus, device, kv):
    if device.type == "cuda" and kv != "fp32":
        pytest.skip("on a GPU, what is rounded to eight bits may change with the batch")

    def engine(slots: int) -> Engine:
        scales = torch.full((orpheus.cache_spec.layers, 2), 0.02)
        return Engine(
            orpheus,
            slots=slots,
            max_length=400,
            keeping=keeping(Format(kv), orpheus.cache_spec.layers, scales),
            hidden_dtype=torch.float32,
            device=device,
            ahead=True,
        )

    jobs = [orpheus_job(seed) for seed in range(7)]
    expected = [as_lists(list(engine(1).submit(job))) for job in jobs]
    shared = engine(9)
    streams = [shared.submit(job) for job in jobs]
    for _ in range(3):
        shared.step()
    assert [stream.slot for stream in streams] == [*range(7)]
    newcomer = shared.submit(replace(orpheus_job(8), hurry=2))
    shared.step()
    moved = [stream.slot for stream in streams]
    assert newcomer.slot < FRONT
    assert moved != [*range(7)]
    for stream, frames in zip(streams, expected, strict=True):
        assert as_lists(list(stream)) == frames
    newcomer.cancel()
    assert_idle(shared)


def test_what_lies_in_unused_positions_is_never_seen(orpheus):
    # not NaN: attention multiplies what the mask hides by zero
    clean, dirty = orpheus_engine(orpheus), orpheus_engine(orpheus)
    for part in dirty._cache.store:
        part.fill_(1e4)
    for seed in range(4):
        job = orpheus_job(seed)
        assert as_lists(list(dirty.submit(job))) == as_lists(list(clean.submit(job)))


def test_a_longer_cache_changes_nothing(orpheus):
    job = orpheus_job(5)
    frames = [as_lists(list(orpheus_engine(orpheus, 1, n).submit(job))) for n in (300, 1000)]
    assert frames[0] == frames[1]


@given(st.lists(st.integers(LEAST_PROMPT, 180), min_size=1, max_size=6))
def test_passes_of_prompts_are_recorded_beforehand(orpheus, lengths):
    engine = orpheus_engine(orpheus, 6, 200)
    steps, most = engine._steps, 256
    steps._recorded = Shapes()
    with torch.inference_mode():
        steps.record_prompts(most)
        assert not engine._cache.lengths.any()
        known = {*steps._recorded.seen}
        while sum(lengths) > most:
            lengths.pop()
        steps.prefill([(slot, [1] * length) for slot, length in enumerate(lengths)])
    assert steps._recorded.seen == known
    assert engine._cache.lengths.tolist()[: len(lengths)] == lengths


@given(st.integers(1, 4096))
def test_a_recorded_step_has_a_few_slots_more_than_it_needs(count):
    slots = _count(count)
    assert count <= slots < max(1.25 * count, count + COUNT_STEP)
    assert _count(slots) == slots
