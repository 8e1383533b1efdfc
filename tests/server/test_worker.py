"""Whose turn it is in an engine process, over the line that the front has."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import scripted
from quaver.audio.encode import pcm16
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.loading import load
from quaver.server.wire import Frame, Frames, Kind, Order, pack
from quaver.server.worker import Worker

SHORT = Order(
    "req", "Hello.", "ada", 1, None, {"temperature": 0.8, "top_p": 1.0}, False, "auto", False
)
LONG = " ".join(f"This is sentence number {i}, and it goes on for a while." for i in range(12))


@pytest.fixture(scope="module")
def voice(tiny_checkpoint):
    return load(tiny_checkpoint, "fp32", "cpu", slots=1, max_length=1500)


class Front:
    """Orders, and hears what comes."""

    def __init__(self, line: socket.socket, worker: threading.Thread | None = None) -> None:
        self._line, self._worker, self._frames = line, worker, Frames()
        self._heard = self._hear()

    def say(self, kind: Kind, number: int, payload=b"") -> None:
        self._line.sendall(pack(kind, number, payload))

    def order(self, number: int, order: Order = SHORT, **changes) -> None:
        self.say(Kind.SUBMIT, number, asdict(replace(order, **changes)))

    def until(self, kind: Kind, number: int) -> list[Frame]:
        found = [next(self._heard)]
        while (found[-1].kind, found[-1].stream) != (kind, number):
            found.append(next(self._heard))
        return found

    def _hear(self) -> Iterator[Frame]:
        while data := self._line.recv(1 << 16):
            # another thread sends ALIVE, which goes on when the worker has died
            assert self._worker is None or self._worker.is_alive(), "the worker has died"
            for frame in self._frames.feed(data):
                if frame.kind not in (Kind.PULSE, Kind.ALIVE):
                    yield frame


@pytest.fixture
def front(voice):
    ours, theirs = socket.socketpair()
    ours.settimeout(240)
    worker = threading.Thread(target=Worker(voice, theirs, False, lambda: None).run)
    worker.start()
    yield Front(ours, worker)
    ours.close()
    worker.join(240)
    assert not worker.is_alive()
    theirs.close()


@pytest.fixture(autouse=True)
def _left_idle(voice, front):
    yield
    if voice.state()["running"]:  # what a test left is ended with its front
        pytest.fail("a stream still runs")


def started(frames: list[Frame]) -> list[int]:
    return [frame.stream for frame in frames if frame.kind is Kind.STARTED]


def test_a_stream_is_whole_and_its_own(front, voice):
    front.order(1, seed=5)
    begun, *audio, done = front.until(Kind.DONE, 1)
    assert begun.json()["queue_seconds"] >= 0
    expected = voice.generate(SHORT.text, voice="ada", seed=5, **SHORT.sampling)
    assert b"".join(frame.payload for frame in audio) == pcm16(expected.samples).tobytes()
    assert done.json()["frames"] == expected.stats.frames


def library_panic() -> BaseException:
    """A panic of the tokenizers library: a pattern that backtracks beyond its limit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    with pytest.raises(BaseException, match="retry-limit") as caught:
        tokenizer.encode("a" * 60)
    return caught.value


def test_a_tokenizer_that_panics_fails_its_request_alone(front, voice, monkeypatch):
    family = next(each for each in vars(voice).values() if isinstance(each, OrpheusPrompts))
    whole, panic = family._tokenizer, library_panic()
    assert not isinstance(panic, Exception)

    def encode(text: str, **options):
        if "Boom" in text:
            raise panic
        return whole.encode(text, **options)

    monkeypatch.setattr(family, "_tokenizer", SimpleNamespace(encode=encode))
    front.order(1, text="Boom.")
    front.order(2)
    heard = front.until(Kind.DONE, 2)
    failed = [frame for frame in heard if frame.kind is Kind.FAILED]
    assert [frame.stream for frame in failed] == [1]
    assert "tokenizer fails on this text" in failed[0].json()["message"]


def test_a_long_text_that_is_ahead_lets_a_short_one_in_between(front):
    front.order(1, text=LONG)
    front.until(Kind.AUDIO, 1)
    front.order(2)
    between = front.until(Kind.DONE, 2)
    assert Kind.DONE not in {frame.kind for frame in between if frame.stream == 1}
    assert {frame.stream for frame in front.until(Kind.DONE, 1)} == {1}


def test_batch_waits_for_interactive(front):
    front.order(1)
    front.order(2, batch=True)
    front.order(3)
    front.order(4)
    assert started(front.until(Kind.DONE, 2)) == [1, 3, 4, 2]


def test_what_is_held_says_nothing_and_goes_on_where_it_was(front, voice):
    front.order(1, text=LONG, seed=3)
    heard = front.until(Kind.AUDIO, 1)
    front.say(Kind.HOLD, 1)
    front.order(2)
    heard += front.until(Kind.DONE, 2)
    front.order(3)
    assert 1 not in {frame.stream for frame in front.until(Kind.DONE, 3)}
    front.say(Kind.GO, 1)
    heard += front.until(Kind.DONE, 1)
    sound = b"".join(f.payload for f in heard if (f.kind, f.stream) == (Kind.AUDIO, 1))
    expected = voice.generate(LONG, voice="ada", seed=3, **SHORT.sampling)
    assert np.abs(np.frombuffer(sound, "<i2") - pcm16(expected.samples)).max() <= 1


def test_what_is_cancelled_is_gone_and_the_next_begins(front):
    front.order(1, text=LONG)
    front.until(Kind.AUDIO, 1)
    front.say(Kind.CANCEL, 1)
    front.say(Kind.CANCEL, 1)
    front.say(Kind.CANCEL, 99)
    front.order(2)
    assert started(front.until(Kind.DONE, 2)) == [2]


def test_text_that_cannot_be_read_is_told_and_harms_nobody(front):
    front.order(1, text=LONG)
    front.order(2, text="\u200b")
    front.order(3, voice="nobody")
    failure = front.until(Kind.FAILED, 3)
    assert [f.json()["mine"] for f in failure if f.kind is Kind.FAILED] == [True, True]
    front.until(Kind.AUDIO, 1)
    front.say(Kind.CANCEL, 1)
    front.order(4)
    front.until(Kind.DONE, 4)


class Patient:
    """A synthesizer that can wait until so many streams were asked for. None is heard."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.asked, self.let_in = wanted, 0, []

    def stream(self, text, **options):
        self.asked += 1
        return SimpleNamespace(poll=lambda: None, ended=False, close=lambda: None)

    def patience(self):
        return 0.01 if self.asked < self.wanted else 0.0

    def advance(self):
        self.let_in.append(self.asked)
        time.sleep(0.01)

    def state(self):
        return {"running": 0, "waiting": 0}


def test_who_comes_while_a_step_can_wait_is_in_it():
    ours, theirs = socket.socketpair()
    made = Patient(3)
    worker = threading.Thread(target=Worker(made, theirs, False, lambda: None).run)
    worker.start()
    front = Front(ours)
    for number in (1, 2, 3):
        front.order(number)
        time.sleep(0.05)
    ours.close()
    worker.join(240)
    theirs.close()
    assert not worker.is_alive()
    assert made.let_in
    assert made.let_in[0] == 3


def eventually(found: Callable[[], object]) -> bool:
    until = time.monotonic() + 240
    while not found() and time.monotonic() < until:
        time.sleep(0.01)
    return bool(found())


def test_a_front_that_reads_nothing_holds_no_step_up():
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    made = scripted.Synthesizer(slots=1)
    worker = threading.Thread(target=Worker(made, theirs, False, lambda: None).run)
    worker.start()
    front = Front(ours)
    front.order(1, text="count 200", seed=3)
    assert eventually(lambda: made._streams)
    (stream,) = made._streams
    assert eventually(lambda: stream.ended)
    sound = [frame.payload for frame in front.until(Kind.DONE, 1) if frame.kind is Kind.AUDIO]
    ours.close()
    worker.join(240)
    theirs.close()
    assert not worker.is_alive()
    assert sound == [pcm16(scripted.tone(3, number)).tobytes() for number in range(200)]
