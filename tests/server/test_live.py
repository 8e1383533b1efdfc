"""A WebSocket: text in as it is written, sound out sentence by sentence."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from scripted import FRAME, RATE, tone
from serving import PATIENCE, scripted, until

KEY = "a-key-of-the-test"
SECONDS = FRAME / RATE  # of a chunk


@pytest.fixture(scope="module")
def server():
    with scripted(max_streams=2, max_queue=0, max_chars=300, max_body=4096) as server:
        yield server


@pytest.fixture(autouse=True)
def _left_idle(server):
    yield
    until(lambda: server.get("/health/ready").status == 200)
    until(lambda: server.idle)


class Talk:
    """One connection."""

    def __init__(self, socket) -> None:
        self.socket = socket

    def send(self, kind: str, **fields) -> None:
        self.socket.send(json.dumps({"type": kind} | fields))

    def next(self) -> dict | bytes:
        message = self.socket.recv(timeout=PATIENCE)
        return json.loads(message) if isinstance(message, str) else message

    def until(self, kind: str) -> list[dict | bytes]:
        """All messages up to one of that type."""
        found = [self.next()]
        while isinstance(found[-1], bytes) or found[-1]["type"] != kind:
            found.append(self.next())
        return found


@contextmanager
def talking(server, **options):
    url = f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream"
    with connect(url, **options) as socket:
        yield Talk(socket)


def told(messages) -> list[dict]:
    return [each for each in messages if isinstance(each, dict)]


def test_sentences_are_spoken_as_they_come(server):
    with talking(server) as talk:
        talk.send("session.config", voice="ben", seed=9)
        for piece in ("count", " 3. Cou", "nt 4. And"):
            talk.send("input.text", text=piece)
        first = talk.until("audio.done")  # although nobody said that the text is whole
        talk.send("input.text", text=" more")
        talk.send("input.done")
        rest = talk.until("session.done")
    start, done = told(first)
    assert start["sentence_text"] == "count 3."
    assert (start["format"], start["sample_rate"]) == ("pcm", RATE)
    sound = b"".join(each for each in first if isinstance(each, bytes))
    expected = np.concatenate([tone(9, number) for number in range(3)])
    assert sound == np.rint(expected * 32768).astype("<i2").tobytes()
    assert done["total_bytes"] == len(sound)
    assert (done["start_seconds"], done["end_seconds"]) == (0, pytest.approx(3 * SECONDS))
    ends = [each for each in told(rest) if each["type"] == "audio.done"]
    assert [each["sentence_index"] for each in ends] == [1, 2]
    assert ends[0]["start_seconds"] == pytest.approx(3 * SECONDS)
    assert ends[0]["end_seconds"] == ends[1]["start_seconds"] == pytest.approx(7 * SECONDS)
    assert rest[-1]["total_sentences"] == 3
    assert rest[-1]["audio_seconds"] == pytest.approx(ends[1]["end_seconds"])


def test_a_connection_has_one_utterance_after_the_other(server):
    with talking(server) as talk:
        for _ in range(3):
            talk.send("input.text", text="count 2")
            talk.send("input.done")
        done = [talk.until("session.done")[-1]["utterance_index"] for _ in range(3)]
        talk.send("input.done")
        empty = talk.next()
    assert done == [0, 1, 2]
    assert (empty["type"], empty["total_sentences"]) == ("session.done", 0)


def test_whoever_interrupts_hears_no_more_and_can_go_on(server):
    with talking(server) as talk:
        talk.send("input.text", text="forever. And this. And that. ")
        while not isinstance(talk.next(), bytes):
            pass
        talk.send("input.clear")
        talk.until("input.cleared")
        until(lambda: server.idle)
        talk.send("input.text", text="count 2")
        talk.send("input.done")
        after = told(talk.until("session.done"))
    assert [each["utterance_index"] for each in after] == [1, 1, 1]
    assert after[0]["sentence_text"] == "count 2"


def test_speed_and_format_are_as_configured(server):
    with talking(server) as talk:
        talk.send("session.config", response_format="wav", speed=2)
        talk.send("input.text", text="count 10")
        talk.send("input.done")
        messages = talk.until("session.done")
    sound = b"".join(each for each in messages if isinstance(each, bytes))
    assert sound.startswith(b"RIFF")
    assert len(sound) == pytest.approx(10 * FRAME, rel=0.1)
    assert messages[-1]["audio_seconds"] == pytest.approx(5 * SECONDS)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("nonsense", None),
        (b"\x00\x01", None),
        ("[]", None),
        ('{"text": "a"}', "type"),
        ('{"type": "input.shout"}', "type"),
        ('{"type": "input.text"}', "text"),
        ('{"type": "input.text", "text": 3}', "text"),
        ('{"type": "session.config", "voice": "eve"}', "voice"),
        ('{"type": "session.config", "speed": 9}', "speed"),
        ('{"type": "session.config", "model": "gpt-5"}', "model"),
        (json.dumps({"type": "input.text", "text": "a" * 301}), "input"),
    ],
)
def test_a_message_that_is_wrong_is_told_and_the_connection_stays(server, message, param):
    with talking(server) as talk:
        talk.socket.send(message)
        error = talk.next()
        assert (error["type"], error["error"]["param"]) == ("error", param)
        talk.send("input.clear")
        assert talk.next()["type"] == "input.cleared"
        talk.send("input.text", text="count 1")
        talk.send("input.done")
        talk.until("session.done")


def test_a_failure_ends_the_utterance_and_what_comes_of_its_text_is_let_go(server):
    with talking(server) as talk:
        talk.send("input.text", text="fail 1. And")
        *_, done, error = talk.until("error")
        assert (done["type"], done["error"], done["end_seconds"]) == ("audio.done", True, None)
        assert error["error"]["code"] == "request_failed"
        talk.send("input.text", text=" more of it. And more")
        talk.send("input.done")
        talk.send("input.text", text="count 1")
        talk.send("input.done")
        assert talk.next()["sentence_text"] == "count 1"


def test_an_engine_that_dies_is_told(server):
    with talking(server) as talk:
        talk.send("input.text", text="forever. And")
        while not isinstance(talk.next(), bytes):
            pass
        server.kill_engine()
        assert talk.until("error")[-1]["error"]["code"] == "engine_lost"


def test_where_there_is_no_place_it_is_told(server):
    with server.speaking("forever"), server.speaking("forever"), talking(server) as talk:
        talk.send("input.text", text="count 1. And")
        assert talk.next()["error"]["code"] == "server_busy"


def test_leaving_frees_the_place(server):
    with talking(server) as talk:
        talk.send("input.text", text="forever. And")
        talk.next()
        assert server.metric("num_requests_accepted") == 1
    until(lambda: server.idle)


def test_closing_is_answered(server):
    with talking(server) as talk:
        talk.send("session.close")
        with pytest.raises(ConnectionClosed) as closed:
            talk.next()
    assert closed.value.rcvd.code == 1000


def test_who_says_nothing_is_let_go_unless_listening():
    with scripted(max_streams=2, idle_timeout=1) as server, talking(server) as talk:
        talk.send("session.config", seed=1)
        talk.send("input.text", text="count 400")  # more seconds than the patience is
        talk.send("input.done")
        assert talk.until("session.done")[-1]["total_sentences"] == 1
        with pytest.raises(ConnectionClosed) as closed:
            talk.next()
    assert closed.value.rcvd.code == 1008


def test_a_message_that_is_too_large_ends_the_connection(server):
    with talking(server) as talk, pytest.raises(ConnectionClosed) as closed:
        talk.send("input.text", text="a" * 5000)
        talk.next()
    assert closed.value.rcvd.code == 1009


def test_pages_of_elsewhere_are_refused(server):
    with pytest.raises(InvalidStatus) as refused, talking(server, origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with talking(server, origin=f"http://127.0.0.1:{server.port}") as talk:
        talk.send("input.done")
        talk.next()


def test_a_key_comes_as_header_or_as_subprotocol():
    with scripted({"QUAVER_API_KEY": KEY}) as server:
        with pytest.raises(InvalidStatus) as refused, talking(server):
            pass
        assert refused.value.response.status_code == 401
        with talking(server, additional_headers={"Authorization": f"Bearer {KEY}"}) as talk:
            talk.send("input.done")
            talk.next()
        with talking(server, subprotocols=[f"openai-insecure-api-key.{KEY}"]) as talk:
            talk.send("input.done")
            talk.next()
        assert KEY not in server.log


TYPES = ("session.config", "input.text", "input.done", "input.clear", "session.close", "x", 7, None)
NAMES = ("text", "voice", "seed", "speed", "response_format", "priority", "max_seconds", "model")
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
SAID = st.tuples(
    st.sampled_from(TYPES), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
).map(lambda parts: json.dumps({"type": parts[0]} | parts[1]))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=st.lists(SAID | st.binary(max_size=50) | st.text(max_size=50), max_size=5))
def test_no_messages_break_it(server, messages):
    """It tells what is wrong and goes on, or ends as it was told to."""
    before = server.log.count("Traceback")
    with talking(server) as talk:
        try:
            for message in messages:
                talk.socket.send(message)
            talk.send("input.clear")
            talk.until("input.cleared")
        except ConnectionClosed as closed:
            assert any("session.close" in str(each) for each in messages)
            assert closed.rcvd is not None and closed.rcvd.code in (1000, 1001)
    assert server.log.count("Traceback") == before
