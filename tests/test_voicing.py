"""Groups of frames that follow a listener: never late where that can be, and large where it can."""

import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quaver.engine.engine import FEW
from quaver.voicing import (
    GLANCE,
    LEAD,
    LOW_LATENCY_RAMP,
    MOST_FIRST,
    RAMP,
    STALL,
    Pace,
    Voices,
    group,
    opening,
)

FRAME = 2048 / 24000  # seconds
FIRST = 0.9 * FRAME  # sound that three frames give


def listen(pace: float, frames: int = 141) -> tuple[float, list[int]]:
    """The latest that sound comes, in seconds, where a frame takes `pace`; and the groups."""
    now, given, late, groups = 0.0, FIRST, 0.0, []
    while len(groups) < frames and sum(groups) < frames:
        count = group(given - now, pace)
        groups.append(count)
        now += count * pace
        late = max(late, now - given)
        given += count * FRAME
    return late, groups


@given(st.floats(0.001, 0.98 * FRAME))
def test_sound_is_not_late_while_frames_are_faster_than_it(pace):
    late, groups = listen(pace)
    assert late <= max(0.0, pace - FIRST) + 1e-9
    assert all(count & (count - 1) == 0 and count <= RAMP[-1] for count in groups)


@pytest.mark.parametrize(("share", "wanted"), [(0.1, 8), (0.5, 8), (0.8, 8), (0.97, 2)])
def test_groups_are_as_large_as_the_lead_allows(share, wanted):
    _, groups = listen(share * FRAME)
    assert groups[-1] == wanted
    assert groups == sorted(groups)


@given(st.floats(0.0, 3.0), st.floats(0.001, FRAME))
def test_a_group_outlasts_newcomers_in_between(ahead, pace):
    count = group(ahead, pace)
    assert count == 1 or count * pace + STALL <= ahead


def test_who_is_behind_gets_every_frame_at_once():
    assert group(-5.0, 0.01) == group(0.0, 0.08) == 1


def test_a_frame_of_all_takes_as_long_as_what_came_between(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(Launching(1))
    for _ in range(40):
        for of_all, seconds in ((False, 0.008), (False, 0.008), (True, 0.014)):
            now += seconds
            pace.tick(of_all, few=True)
            assert pace.now == now
    assert pace.seconds == pytest.approx(0.03, rel=1e-3)
    now += 60.0  # nobody asked for one
    pace.tick(of_all=True, few=True)
    assert pace.seconds < FRAME


def test_a_slow_frame_is_long_remembered_where_many_speak(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(Launching(1))
    for took in (*[0.02] * 40, 0.08, *[0.02] * 10):
        now += took
        pace.tick(of_all=True, few=False)
    assert 0.04 < pace.seconds < 0.08
    pace.tick(of_all=False, few=True)
    assert pace.seconds < 0.03


def test_a_pause_is_no_slow_frame(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Many(1)
    voices = Voices(made, made, True)
    for _ in range(40):
        now += 60.0
        voice = voices.speak(None, None, False, True, 0.0)
        for _ in range(4):
            now += 0.01
            voices.advance()
        voices.close(voice)
    assert made.decoded == [1] * 40


class Launching:
    """An engine of one voice that launches a frame before it looks at the last; a voice's frames;
    and a codec that remembers how many frames had been made and were in flight at each decode."""

    sample_rate, samples_per_frame, slots = 24000, 2048, 1
    drained = False

    def __init__(self, running: int) -> None:
        self.lock, self.running = threading.RLock(), running
        self.launched = self.made = self.taken = 0
        self.decoded: list[tuple[int, int]] = []

    def slack(self):
        return 0.004

    def submit(self, job, rank):
        return self

    def step(self, hold):
        flying = self.launched - self.made
        self.launched += not (hold and flying)
        self.made += flying
        return flying > 0

    def take(self, most):
        count = min(most, self.made - self.taken)
        self.taken += count
        return [torch.zeros(7)] * count

    def streams(self, slots, graphs):
        return self

    def prepare(self, first):
        assert first == RAMP[0]

    def open(self, seed):
        return self

    def close(self):
        pass

    def decode(self, parts):
        self.decoded.append((self.made, self.launched - self.made))
        return [np.zeros(len(part.frames) * self.samples_per_frame) for part in parts]


@pytest.mark.parametrize("low_latency", [False, True])
@pytest.mark.parametrize(
    ("running", "graphs"), [(1, True), (FEW, True), (FEW + 1, True), (1, False)]
)
def test_a_first_sound_is_decoded_while_nothing_else_runs(running, graphs, low_latency):
    """Where few speak, and frames are made ahead; later ones beside the next frame."""
    made = Launching(running)
    voices = Voices(made, made, graphs)
    voices.speak(None, None, low_latency, True, 0.0)
    for _ in range(30):
        voices.advance()
    many = graphs and running > FEW
    first = (LOW_LATENCY_RAMP if low_latency and not many else RAMP)[0]
    alone = graphs and not many
    assert made.decoded[0] == (first, 0 if alone else 1)
    assert len(made.decoded) > 3
    assert all(flying == 1 for _, flying in made.decoded[1:])


@pytest.mark.parametrize(("running", "graphs"), [(1, True), (FEW, True)])
def test_where_few_speak_a_frame_waits_for_who_may_still_come(running, graphs, monkeypatch):
    made = Launching(running)
    voices = Voices(made, made, graphs)
    assert voices.patience() == GLANCE
    monkeypatch.setattr(made, "slack", lambda: LEAD + GLANCE / 4)
    assert voices.patience() == pytest.approx(GLANCE / 4)
    monkeypatch.setattr(made, "slack", lambda: LEAD / 2)
    assert voices.patience() == 0.0


@pytest.mark.parametrize(("running", "graphs"), [(FEW + 1, True), (1, False)])
def test_elsewhere_it_does_not(running, graphs):
    made = Launching(running)
    assert Voices(made, made, graphs).patience() == 0.0


class Frames:
    """Of one voice of `Many`."""

    drained = False

    def __init__(self):
        self.launched = self.made = self.taken = 0

    def cancel(self):
        pass

    def take(self, most):
        count = min(most, self.made - self.taken)
        self.taken += count
        return [torch.zeros(7)] * count


class Many(Launching):
    """The same for many voices."""

    def __init__(self, running):
        super().__init__(running)
        self.streams_ = []
        self.slots = running

    def submit(self, job, rank):
        self.streams_.append(Frames())
        return self.streams_[-1]

    def step(self, hold):
        for frames in self.streams_:
            frames.made, frames.launched = frames.launched, frames.launched + 1
        return True

    def decode(self, parts):
        self.decoded.append(len(parts))
        return [np.zeros(len(part.frames) * self.samples_per_frame) for part in parts]


class Named(Many):
    """The same, which remembers whose frames were decoded together."""

    def open(self, seed):
        return SimpleNamespace(seed=seed, close=lambda: None)

    def decode(self, parts):
        self.decoded.append([part.stream.seed for part in parts])
        return [np.zeros(len(part.frames) * self.samples_per_frame) for part in parts]


@pytest.mark.parametrize("graphs", [False, True])
def test_who_has_sound_waits_once_for_a_first_sound(graphs, monkeypatch):
    """Somebody begins in every step, and others have something to decode in each."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Named(64)
    voices = Voices(made, made, graphs)
    for number in range(64):
        voices.speak(None, number, False, graphs, 0.0)
        now += 0.9 * FRAME
        voices.advance()
    together = made.decoded[10:]
    assert all(after[-1] == before[-1] + 1 for before, after in pairwise(together))
    waited = [len(each) == 1 for each in together]
    assert any(waited) == graphs
    assert all(after != before for before, after in pairwise(waited)) == graphs


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize(("count", "most"), [(8, 8), (64, 32), (256, 103), (600, 240)])
def test_voices_that_begin_together_are_decoded_in_turns(count, most, graphs, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Many(count)
    voices = Voices(made, made, graphs)
    for _ in range(count):
        voices.speak(None, None, False, True, 0.0)
    for _ in range(64):
        now += 0.03
        voices.advance()
    made.decoded.clear()
    for _ in range(32):
        now += 0.03
        voices.advance()
    assert max(made.decoded) == (most if graphs else count)
    assert sum(made.decoded) == 32 // RAMP[-1] * count  # no smaller groups any more


@given(st.integers(0, 5000), st.integers(1, 2000), st.floats(0.0, 3.0))
def test_a_first_sound_lasts_until_there_is_more(number, crowd, pace):
    frames = opening(number, crowd, pace)
    assert RAMP[0] <= frames <= RAMP[-1]
    assert frames - RAMP[0] + 0.5 >= pace or frames == RAMP[-1]
    if crowd < 64 and pace < 0.3:
        assert frames == RAMP[0]


@pytest.mark.parametrize("crowd", [128, 600])
def test_near_real_time_first_sounds_last_for_long_and_are_not_all_of_one_length(crowd):
    assert {opening(number, crowd, 0.95) for number in range(600)} == {MOST_FIRST, MOST_FIRST + 1}


@pytest.mark.parametrize("low_latency", [False, True])
def test_a_later_segment_makes_nobody_wait_for_longer_than_it_must(low_latency, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Launching(1)
    voices = Voices(made, made, True)
    voices._pace.seconds = voices._pace._mean = 0.9 * FRAME
    voices.speak(None, None, low_latency, True, 0.0, begins=False)
    while not made.decoded:
        now += 0.9 * FRAME
        voices.advance()
    assert made.taken == RAMP[0]


@pytest.mark.parametrize(("pace", "wanted"), [(0.2, LOW_LATENCY_RAMP[0]), (0.7, MOST_FIRST)])
def test_who_wants_a_first_sound_soon_has_it_where_it_lasts(pace, wanted, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    made = Launching(1)
    voices = Voices(made, made, True)
    voices._pace.seconds = voices._pace._mean = pace * FRAME
    voices.speak(None, None, True, True, 0.0)
    while not made.decoded:
        now += pace * FRAME
        voices.advance()
    assert made.taken == wanted
