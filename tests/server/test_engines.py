"""What an engine says and what a client does may cross; frames may be anything."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quaver.server.engines import Engine, EngineLostError, Status, StreamFailedError
from quaver.server.settings import Settings
from quaver.server.wire import HEADER, MOST_BYTES, Frame, Frames, Kind, Order, WireError, pack

RATE = 24000
ORDER = Order("req", "Hello.", None, 1, None, {}, False, "auto", False)
SECOND = b"\0\0" * RATE


class Line:
    """Keeps what was written."""

    def __init__(self) -> None:
        self._frames = Frames()
        self.said: list[Kind] = []

    def write(self, data: bytes) -> None:
        self.said += [frame.kind for frame in self._frames.feed(data)]

    def close(self) -> None:
        pass


@pytest.fixture
def engine():
    engine = Engine(Settings().places[0])
    engine._status, engine._heard = Status.READY, time.monotonic()
    engine.facts, engine._writer = {"sample_rate": RATE}, Line()
    return engine


def say(engine: Engine, ticket, kind: Kind, payload: bytes = b"{}") -> None:
    engine._hear(Frame(kind, ticket.number, payload))


def test_what_is_said_comes_in_order(engine):
    async def listen():
        ticket = engine.submit(ORDER)
        for kind in (Kind.STARTED, Kind.AUDIO, Kind.AUDIO, Kind.DONE):
            say(engine, ticket, kind)
        return [(await ticket.next()).kind for _ in range(4)]

    assert asyncio.run(listen()) == [Kind.STARTED, Kind.AUDIO, Kind.AUDIO, Kind.DONE]
    assert engine._writer.said == [Kind.SUBMIT]


def test_cancelling_what_is_done_says_nothing(engine):
    ticket = engine.submit(ORDER)
    say(engine, ticket, Kind.DONE)
    ticket.cancel()
    assert engine._writer.said == [Kind.SUBMIT]


def test_what_comes_after_cancelling_is_for_nobody(engine):
    ticket = engine.submit(ORDER)
    ticket.cancel()
    ticket.cancel()
    say(engine, ticket, Kind.AUDIO, SECOND * 20)
    say(engine, ticket, Kind.DONE)
    say(engine, ticket, Kind.FAILED, b'{"message": "late", "mine": false}')
    assert engine._writer.said == [Kind.SUBMIT, Kind.CANCEL]
    assert engine._tickets == {}


def test_a_death_before_the_first_sound_reaches_who_waits(engine):
    async def die():
        ticket = engine.submit(ORDER)
        waiting = asyncio.create_task(ticket.next())
        await asyncio.sleep(0)
        await engine._end()
        with pytest.raises(EngineLostError):
            await waiting
        ticket.cancel()
        with pytest.raises(EngineLostError):
            engine.submit(ORDER)

    asyncio.run(die())
    assert engine._tickets == {}


def test_what_came_before_a_death_is_still_heard(engine):
    async def die():
        ticket = engine.submit(ORDER)
        say(engine, ticket, Kind.AUDIO)
        await engine._end()
        assert (await ticket.next()).kind is Kind.AUDIO
        with pytest.raises(EngineLostError):
            await ticket.next()

    asyncio.run(die())


def test_a_stream_that_is_done_is_not_touched_by_a_death(engine):
    async def die():
        ticket = engine.submit(ORDER)
        say(engine, ticket, Kind.DONE)
        await engine._end()
        assert (await ticket.next()).kind is Kind.DONE

    asyncio.run(die())


@pytest.mark.parametrize("mine", [True, False])
def test_a_failure_is_told_with_whose_fault_it_is(engine, mine):
    async def fail():
        ticket = engine.submit(ORDER)
        say(
            engine,
            ticket,
            Kind.FAILED,
            b'{"message": "no", "mine": %s}' % str(mine).lower().encode(),
        )
        with pytest.raises(StreamFailedError, match="no") as failed:
            await ticket.next()
        return failed.value.mine

    assert asyncio.run(fail()) is mine


def test_a_client_that_is_slow_holds_its_stream_and_lets_it_go_on(engine):
    async def read():
        ticket = engine.submit(ORDER)
        for _ in range(12):
            say(engine, ticket, Kind.AUDIO, SECOND)
        assert engine._writer.said == [Kind.SUBMIT, Kind.HOLD]
        for _ in range(6):
            await ticket.next()
        assert Kind.GO not in engine._writer.said
        for _ in range(6):
            await ticket.next()

    asyncio.run(read())
    assert engine._writer.said == [Kind.SUBMIT, Kind.HOLD, Kind.GO]


@given(payloads=st.lists(st.binary(max_size=50), max_size=5), cut=st.integers(1, 30))
def test_frames_are_the_same_however_they_are_cut(payloads, cut):
    data = b"".join(pack(Kind.AUDIO, number, each) for number, each in enumerate(payloads))
    frames = Frames()
    found = [frame for at in range(0, len(data), cut) for frame in frames.feed(data[at : at + cut])]
    assert found == [Frame(Kind.AUDIO, number, each) for number, each in enumerate(payloads)]


@pytest.mark.parametrize("header", [(99, 0, 0), (0, 0, 0), (Kind.AUDIO, 0, MOST_BYTES + 1)])
def test_what_nobody_of_ours_would_say_is_an_error(header):
    with pytest.raises(WireError):
        list(Frames().feed(HEADER.pack(*header)))


def test_nothing_too_long_is_said():
    with pytest.raises(WireError):
        pack(Kind.SUBMIT, 1, {"text": "a" * MOST_BYTES})
