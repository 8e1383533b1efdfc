"""Text that chat models write, through HTTP and the WebSocket: what is heard, told and refused."""

import json
from contextlib import contextmanager

import pytest
from websockets.sync.client import connect

from serving import scripted

PARTY, NAME = "\U0001f389", "U+1F389 (PARTY POPPER)"
HEADER = "X-Characters-Left-Out"


@pytest.fixture(scope="module")
def server():
    with scripted(max_streams=2) as server:
        yield server
        assert "Traceback" not in server.log


@contextmanager
def talking(server, **config):
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream") as socket:
        if config:
            socket.send(json.dumps({"type": "session.config"} | config))
        yield socket


def turn(socket, *pieces: str) -> list[dict]:
    """What is told of one turn, sound aside."""
    for piece in pieces:
        socket.send(json.dumps({"type": "input.text", "text": piece}))
    socket.send(json.dumps({"type": "input.done"}))
    told = []
    while not told or told[-1]["type"] != "session.done":
        message = socket.recv(timeout=20)
        if isinstance(message, str):
            told.append(json.loads(message))
    return told


def kinds(told: list[dict]) -> list[str]:
    return [each["type"] for each in told]


# Text, and how many characters of it no small model reads.
SPOKEN = [
    ("Plain words.", 0),
    ("**Bold** and `code` here.", 0),
    (f"Great job! {PARTY}", 1),
    ("Hel\u200dlo\u200e the\u202cre\u061c you\ufe0f", 0),
    ("A well\u2011known fact.", 0),
    ("\u2022 One thing", 0),
    ("It costs \u00a35, or $5.99 today.", 0),
    ("Take 50% off.", 0),
    ("THIS IS VERY LOUD.", 0),
    ("Say \u4f60\u597d to her.", 2),
    ("One.\n\n\u4f60\u597d\n\nTwo.", 2),
    ("7", 0),
]
SILENT = ["...", "!!!", "?", "-", PARTY, f"{PARTY} {PARTY}", "\u4f60\u597d", "\u0301", "<laugh>"]


@pytest.mark.parametrize(("text", "left_out"), SPOKEN)
def test_http_speaks_what_can_be_read_and_counts_the_rest(server, text, left_out):
    answer = server.speak(text)
    assert answer.status == 200, answer.body
    assert len(answer.body) > 0
    assert answer.headers[HEADER] == (str(left_out) if left_out else None)


def test_half_a_character_is_left_out(server):
    """As clients send it that cut text in the middle of an emoji."""
    assert server.speak("Hi \ud83d there").status == 200
    assert server.speak("\ud83d").status == 400


@pytest.mark.parametrize("fields", [{"stream": False}, {"stream_format": "sse"}, {}])
def test_every_form_of_an_answer_tells_the_count(server, fields):
    answer = server.speak(f"Great job! {PARTY}", **fields)
    assert answer.headers[HEADER] == "1"
    if "stream_format" in fields:
        *_, done = [each for each in answer.body.decode().split("\n\n") if each]
        stats = json.loads(done.removeprefix("data: "))["stats"]
        assert (stats["characters_left_out"], stats["left_out"]) == (1, [NAME])


@pytest.mark.parametrize("text", SILENT)
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_http_refuses_text_with_nothing_to_speak(server, text, stream_format):
    answer = server.speak(text, stream_format=stream_format)
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == ("input", "nothing_to_speak")
    assert "no letter or digit to speak" in answer.error["message"]


def test_http_refuses_strictly_by_code_point(server):
    answer = server.speak(f"Great job! {PARTY}", strict=True)
    assert (answer.status, answer.error["code"]) == (400, "unreadable_text")
    assert NAME in answer.error["message"]
    assert server.speak("**Great** job!", strict=True).status == 200


@pytest.mark.parametrize("mode", [None, "auto", "full", "light", "off"])
def test_the_mode_reaches_the_engine(server, mode):
    fields = {} if mode is None else {"normalize": mode}
    over_http = server.speak("repeat $5.99.", **fields).error["message"]
    with talking(server, **fields) as socket:
        socket.send(json.dumps({"type": "input.text", "text": "repeat $5.99. And"}))
        over_websocket = json.loads(socket.recv(timeout=20))["error"]["message"]
    expected = "repeat $5.99" if mode in ("light", "off") else "repeat five dollars"
    assert over_http.startswith(expected)
    assert over_websocket.startswith(expected)


def test_other_modes_are_refused(server):
    answer = server.speak("Hi.", normalize="most")
    assert (answer.status, answer.error["param"]) == (400, "normalize")
    assert all(mode in answer.error["message"] for mode in ("auto", "full", "light", "off"))


def test_a_sentence_without_words_is_skipped_and_the_turn_goes_on(server):
    with talking(server) as socket:
        told = turn(
            socket,
            *("Hello there. ", f"{PARTY} Great work! ", f"{PARTY}{PARTY}! ", "Now it comes. "),
            *("\u4f60\u597d. ", "Turn off the oven."),
        )
        again = turn(socket, "count 1")  # the connection is as before
    assert "error" not in kinds(told)
    heard = [each["sentence_text"] for each in told if each["type"] == "audio.start"]
    assert [text for text in heard if text.startswith(("Hello", "Now", "Turn"))] == [
        *("Hello there.", "Now it comes.", "Turn off the oven.")
    ]
    assert any("Great work!" in text for text in heard)
    warnings = [each for each in told if each["type"] == "warning"]
    assert sum(each["count"] for each in warnings) == 5
    assert all(each["utterance_index"] == 0 and each["message"] for each in warnings)
    assert {name for each in warnings for name in each["characters"]} == {
        *(NAME, "U+4F60 (CJK UNIFIED IDEOGRAPH-4F60)", "U+597D (CJK UNIFIED IDEOGRAPH-597D)")
    }
    spoken = {each["sentence_index"] for each in told if each["type"] == "audio.done"}
    skipped = {each["sentence_index"] for each in warnings if each["skipped"]}
    assert not spoken & skipped
    assert told[-1]["total_sentences"] == len(spoken | skipped)
    assert kinds(again) == ["audio.start", "audio.done", "session.done"]


@pytest.mark.parametrize(("mode", "read"), [("auto", False), ("light", False), ("off", True)])
def test_blocks_of_markdown_are_followed_through_the_pieces(server, mode, read):
    pieces = ("Run this:\n``", "`\nsome code. More ", "code.\n``", "`\nThen it ends. ", "Good.")
    with talking(server, normalize=mode) as socket:
        told = turn(socket, *pieces)
    heard = " ".join(each["sentence_text"] for each in told if each["type"] == "audio.start")
    assert heard.startswith("Run this:")
    assert heard.endswith("Then it ends. Good.")
    assert ("code" in heard) is read


def test_what_is_left_out_of_a_sentence_is_told_before_its_sound(server):
    with talking(server) as socket:
        told = turn(socket, f"Good {PARTY} day.")
    assert kinds(told) == ["warning", "audio.start", "audio.done", "session.done"]
    assert (told[0]["sentence_index"], told[0]["count"], told[0]["skipped"]) == (0, 1, False)
    assert told[0]["characters"] == [NAME]


def test_a_turn_of_nothing_but_an_emoji_is_done(server):
    with talking(server) as socket:
        told = turn(socket, PARTY)
        assert (told[-1]["type"], told[-1]["audio_seconds"]) == ("session.done", 0)
        assert kinds(turn(socket, "count 1"))[-1] == "session.done"


def test_strictly_one_sentence_is_refused_and_the_turn_goes_on(server):
    with talking(server, strict=True) as socket:
        told = turn(socket, f"Hello. Good {PARTY} day. Turn off the oven.")
    assert [each["sentence_text"] for each in told if each["type"] == "audio.start"] == [
        *("Hello.", "Turn off the oven.")
    ]
    (error,) = [each for each in told if each["type"] == "error"]
    assert (error["utterance_index"], error["sentence_index"]) == (0, 1)
    assert error["error"]["code"] == "unreadable_text"
    assert NAME in error["error"]["message"]


def test_skipped_sentences_are_counted_apart(server):
    before = server.metric("requests_failed_total", reason="nothing_to_speak")
    server.speak("...")
    assert server.metric("requests_failed_total", reason="nothing_to_speak") == before + 1
