"""Settings, keys, rates, requests and tempo, each alone."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from quaver.audio.tempo import Tempo
from quaver.bench.streams import Heard
from quaver.cli.main import run
from quaver.core.errors import ConfigError, InputError
from quaver.core.types import StreamStats
from quaver.server.access import Keys, Rates
from quaver.server.errors import ApiError
from quaver.server.metrics import Metrics
from quaver.server.schemas import BUILT_IN, SpeechOptions, SpeechRequest, parse
from quaver.server.settings import Settings, read_settings
from quaver.text.feed import SentenceFeed
from quaver.text.segments import tidy

KEY = "a-key-of-the-test"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("streams = 3", "unknown settings"),
        ('api_keys = ["a-key-in-a-file"]', "unknown settings"),
        ('port = "80"', "must be int"),
        ("port = true", "must be int"),
        ('recipe = "int8"', "must be tuple"),
        ("send_timeout = 0", "send_timeout is 0"),
        ("send_timeout = inf", "send_timeout is inf"),
        ("max_chars = 0", "max_chars is 0"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told(tmp_path, line, message):
    file = tmp_path / "serve.toml"
    file.write_text(line)
    with pytest.raises((ConfigError, InputError), match=message):
        read_settings(file, {})


def test_flags_override_the_file_and_the_rest_is_default(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('port = 80\nmax_queue = 1\nsend_timeout = 3\nrecipe = ["int8"]')
    settings = read_settings(file, {"port": 81, "max_queue": None})
    assert (settings.port, settings.max_queue, settings.send_timeout) == (81, 1, 3.0)
    assert settings.recipe == ("int8",)
    assert settings.max_chars == Settings().max_chars


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("QUAVER_API_KEY", f" {KEY} ")
    assert read_settings(None, {}).api_keys == (KEY,)
    file = tmp_path / "keys"
    file.write_text("first-key\nsecond-key\n")
    settings = read_settings(None, {"api_key_file": str(file)})
    assert settings.api_keys == ("first-key", "second-key")
    assert "first-key" not in repr(settings) + settings.shown()
    file.write_text("\n")
    with pytest.raises(InputError, match="holds no API key"):
        read_settings(None, {"api_key_file": str(file)})
    monkeypatch.setenv("QUAVER_API_KEY", "short")
    with pytest.raises(ConfigError, match="at least 8"):
        read_settings(None, {})


def test_any_of_several_keys_opens_and_each_is_a_caller():
    keys = Keys(("first-key", "second-key"))
    callers = {
        keys.caller(Headers({"authorization": f"bearer {key}"}), "1.2.3.4")
        for key in ("first-key", "second-key")
    }
    assert len(callers) == 2 and "1.2.3.4" not in callers
    with pytest.raises(ApiError) as refused:
        keys.caller(Headers({}), "1.2.3.4")
    assert refused.value.status == 401
    assert Keys(()).caller(Headers({}), "1.2.3.4") == "1.2.3.4"


def test_a_stream_of_many_segments_is_counted_once():
    metrics = Metrics()
    heard = Heard(StreamStats(), 24000, [0.1, 0.2], [2400, 2400], 0.1)
    stats = {"rtf": 0.5, "queue_seconds": 0.0, "audio_seconds": 0.2, "frames": 3}
    for reasons in (["stop", "length", "stop"], ["stop", "stop"]):
        metrics.hear("fp32", heard)
        metrics.finish("fp32", heard, stats | {"finish_reasons": reasons}, 1.0)
    told = metrics.text().decode()
    for reason in ("length", "stop"):
        labels = f'finished_reason="{reason}",recipe="fp32"'
        assert f"quaver:requests_success_total{{{labels}}} 1.0" in told
    assert 'quaver:audio_continuity_ok_total{recipe="fp32",threshold_ms="100"} 2.0' in told


def test_who_left_is_counted_as_far_as_they_heard():
    metrics = Metrics()
    metrics.hear("fp32", Heard(StreamStats(), 24000, [0.1, 2.0], [2400, 2400], 0.1))
    metrics.hear("fp32", Heard(StreamStats(), 24000))
    told = metrics.text().decode()
    for name in ("audio_ttfp_seconds", "audio_chunk_interval_seconds", "audio_underrun_seconds"):
        assert f'quaver:{name}_count{{recipe="fp32"}} 1.0' in told
    assert 'quaver:audio_underrun_seconds_sum{recipe="fp32"} 1.8' in told
    assert "quaver:requests_success_total{" not in told


def test_rates_are_counted_for_each_caller_and_come_back(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("quaver.server.access.time.monotonic", lambda: now[0])
    rates = Rates(3)
    for _ in range(3):
        rates.count("a")
    with pytest.raises(ApiError) as refused:
        rates.count("a")
    assert refused.value.headers == {"Retry-After": "20"}
    rates.count("b")
    now[0] = 19.9
    with pytest.raises(ApiError):
        rates.count("a")
    now[0] = 20.1
    rates.count("a")
    Rates(0).count("a")


def test_callers_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr("quaver.server.access.MOST_CALLERS", 10)
    rates = Rates(3)
    for number in range(100):
        rates.count(str(number))
    assert len(rates._callers) == 10


def test_openais_voices_stand_for_the_models_in_turn():
    voices = ["slt", "rms", "awb"]
    meant = [SpeechOptions(voice=name).voice_of(voices) for name in BUILT_IN]
    assert meant == [voices[number % 3] for number in range(13)]
    assert SpeechOptions(voice={"id": "rms"}).voice_of(voices) == "rms"
    assert SpeechOptions(voice="echo").voice_of(["tara", "echo"]) == "echo"
    assert SpeechOptions().voice_of(voices) == "slt"
    assert SpeechOptions(voice="none").voice_of(voices) is None
    assert SpeechOptions(voice="alloy").voice_of([]) is None


def test_a_request_is_ordered_as_it_was_asked():
    body = b'{"input": "Hi.", "seed": 5, "top_p": 0.5, "priority": "batch", "x": 1}'
    asked = parse(SpeechRequest, body)
    order = asked.order("req", asked.input, ["ada"])
    assert (order.text, order.voice, order.seed, order.batch) == ("Hi.", "ada", 5, True)
    assert order.sampling == {"top_p": 0.5}
    drawn = {SpeechOptions().order("", "", []).seed for _ in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("speed", [0.25, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("size", [100, 2048])
def test_tempo_keeps_the_pitch(speed, size):
    rate, hertz = 24000, 300
    samples = np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate).astype(np.float32) / 2
    tempo = Tempo(rate, speed)
    parts = [tempo.push(samples[at : at + size]) for at in range(0, len(samples), size)]
    out = np.concatenate([*parts, tempo.finish()])
    assert len(out) == pytest.approx(len(samples) / speed, rel=0.02)
    middle = out[len(out) // 4 : -len(out) // 4]
    peak = np.abs(np.fft.rfft(middle)).argmax() * rate / len(middle)
    assert peak == pytest.approx(hertz, abs=4)
    if size == 2048:  # nothing waits for the end
        assert len(np.concatenate(parts)) > 0.8 * len(out)


@pytest.mark.parametrize("speed", [0.2, 4.1, float("nan")])
def test_other_tempos_are_refused(speed):
    with pytest.raises(InputError, match=r"allowed is 0\.25 to 4"):
        Tempo(24000, speed)


STORY = (
    "Dr. Smith came at 3.14 p.m. on No. 5 street. He sat. “Why?” he asked… Nobody knew!\n\n"
    "It rained."
)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40))
def test_sentences_are_the_same_however_the_text_comes(sizes):
    whole = SentenceFeed(100)
    expected = whole.push(STORY) + whole.finish()
    feed, found, rest = SentenceFeed(100), [], STORY
    for size in [*sizes, len(STORY)]:
        found += feed.push(rest[:size])
        rest = rest[size:]
    assert found + feed.finish() == expected
    assert expected[0] == "Dr. Smith came at 3.14 p.m. on No. 5 street."
    assert expected[-1] == "It rained."


@given(st.lists(st.text(max_size=30), max_size=8))
def test_no_character_is_lost_or_said_twice(pieces):
    feed = SentenceFeed(40)
    found = [sentence for piece in pieces for sentence in feed.push(piece)] + feed.finish()
    text = tidy("".join(pieces))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence and len(sentence) <= 40 for sentence in found)
    assert feed.finish() == []


def test_a_sentence_is_given_when_the_next_begins():
    feed = SentenceFeed(100)
    assert feed.push("It was late. ") == []
    assert feed.push("N") == ["It was late."]
    assert feed.push("obody spoke") == []
    assert feed.finish() == ["Nobody spoke"]


def test_what_is_not_installed_is_told(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("quaver.server.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["serve", "nano", "--port", "0"]) == 2
    assert "pip install 'quaver[serve]'" in capsys.readouterr().err
