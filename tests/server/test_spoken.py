"""The bundled voice, served: OpenAI's client, all formats, the very samples of `quaver.load`."""

import base64
import io
import json
import os
import shutil
import subprocess
import tomllib

import av
import numpy as np
import openai
import pytest
from websockets.sync.client import connect

import quaver
from command import ENVIRONMENT, command
from quaver.audio.encode import pcm16
from serving import PATIENCE, served, until

TEXT = "Hello there."
LONG = "It was late. Nobody spoke. The rain fell on the roof, and on the street. " * 2
FORMATS = {
    "mp3": ("audio/mpeg", "mp3"),
    "opus": ("audio/ogg; codecs=opus", "ogg"),
    "aac": ("audio/aac", "aac"),
    "flac": ("audio/flac", "flac"),
    "wav": ("audio/wav", "wav"),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with served("nano", "--recipe", "fp32", "--max-streams", 2) as server:
        yield server
        assert server.end() == 0
        assert "Traceback" not in server.log


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="unused", max_retries=0
    )


@pytest.fixture(scope="module")
def expected() -> bytes:
    """What the text is in 16 bits, made here."""
    return pcm16(quaver.load("nano", "fp32").generate(TEXT, seed=7).samples).tobytes()


def decoded(data: bytes, format: str) -> tuple[np.ndarray, int]:
    with av.open(io.BytesIO(data), format=format) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        (stream,) = container.streams.audio
        samples = np.concatenate(frames)
        whole = np.issubdtype(samples.dtype, np.integer)
        return samples / (32768 if whole else 1), stream.rate


def test_the_samples_are_those_of_the_library(client, expected):
    answer = client.audio.speech.create(
        model="nano", voice="slt", input=TEXT, response_format="pcm", extra_body={"seed": 7}
    )
    assert answer.content == expected


def test_the_client_streams(client, expected):
    arrived = []
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="pcm", extra_body={"seed": 7}
    ) as answer:
        assert answer.headers["content-type"] == "audio/pcm;rate=24000"
        assert answer.headers["x-sample-rate"] == "24000"
        assert answer.headers["x-voice"] == "slt"
        assert "ttfa;dur=" in answer.headers["server-timing"]
        arrived += list(answer.iter_bytes())
    assert b"".join(arrived) == expected
    assert len(arrived) > 2


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stream", [True, False])
def test_every_format_decodes_to_the_same_sound(server, expected, name, stream):
    media, container = FORMATS[name]
    answer = server.speak(TEXT, seed=7, response_format=name, stream=stream)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == media
    samples, rate = decoded(answer.body, container)
    seconds = len(expected) / 2 / 24000
    assert len(samples) / rate == pytest.approx(seconds, abs=0.1)
    loud = np.frombuffer(expected, "<i2") / 32768
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(np.sqrt(np.mean(loud**2)), rel=0.1)
    if not stream:
        assert int(answer.headers["Content-Length"]) == len(answer.body)
        assert float(answer.headers["X-Audio-Duration"]) == pytest.approx(seconds, abs=1e-3)
        assert float(answer.headers["X-RTF"]) > 0
    if name == "wav":
        told = int.from_bytes(answer.body[40:44], "little")
        assert told == (0xFFFFFFFF if stream else len(answer.body) - 44)
        assert answer.body[44:] == expected


def test_speed_changes_the_length_and_not_the_pitch(server, expected):
    fast = server.speak(TEXT, seed=7, speed=2).body
    slow = server.speak(TEXT, seed=7, speed=0.5).body
    assert len(fast) == pytest.approx(len(expected) / 2, rel=0.05)
    assert len(slow) == pytest.approx(len(expected) * 2, rel=0.05)
    centres = [_centroid(np.frombuffer(each, "<i2")) for each in (expected, fast, slow)]
    assert max(centres) < 1.2 * min(centres)


def _centroid(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((power * np.fft.rfftfreq(len(samples), 1 / 24000)).sum() / power.sum())


def test_events_carry_the_sound_and_what_it_took(server, expected):
    body = server.speak(TEXT, seed=7, stream_format="sse").body.decode()
    *deltas, done = [json.loads(each.removeprefix("data: ")) for each in body.split("\n\n") if each]
    assert b"".join(base64.b64decode(each["audio"]) for each in deltas) == expected
    assert done["type"] == "speech.audio.done"
    usage, stats = done["usage"], done["stats"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert stats["audio_seconds"] == pytest.approx(len(expected) / 2 / 24000)
    assert stats["finish_reasons"] == ["stop"] and stats["seed"] == 7


def test_mistakes_reach_the_client_as_its_own_errors(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.speech.create(model="nano", voice="eve", input=TEXT)
    assert (refused.value.param, refused.value.type) == ("voice", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.speech.create(model="nano", voice="slt", input="\U0001f600")
    assert refused.value.param == "input"
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(model="gpt-5", voice="slt", input=TEXT)
    assert [model.id for model in client.models.list()] == ["nano"]


def test_text_of_a_chat_model_is_spoken(server):
    def spoken(text: str, **fields) -> tuple[bytes, str | None]:
        answer = server.speak(text, seed=7, **fields)
        assert answer.status == 200, answer.body
        return answer.body, answer.headers["X-Characters-Left-Out"]

    plain, count = spoken("Great job, it costs five dollars!")
    assert count is None
    assert spoken("**Great** job\u2060, it costs $5! \U0001f389") == (plain, "1")
    assert spoken("Great job, it costs $5!", normalize="off")[0] != plain


def test_an_emoji_does_not_end_a_turn(server):
    url = f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream"
    with connect(url) as socket:
        for text in ("Hello there. ", "\U0001f389. ", "Turn off the oven."):
            socket.send(json.dumps({"type": "input.text", "text": text}))
        socket.send(json.dumps({"type": "input.done"}))
        told, sound = [], 0
        while not told or told[-1]["type"] != "session.done":
            message = socket.recv(timeout=60)
            if isinstance(message, str):
                told.append(json.loads(message))
            else:
                sound += len(message)
    heard = [each["sentence_text"] for each in told if each["type"] == "audio.start"]
    assert heard == ["Hello there.", "Turn off the oven."]
    assert "error" not in [each["type"] for each in told]
    assert told[-1]["audio_seconds"] == pytest.approx(sound / 2 / 24000)


def test_a_seed_that_was_drawn_is_told(server):
    drawn = server.speak("Yes.")
    again = server.speak("Yes.", seed=int(drawn.headers["X-Seed"]))
    assert again.body == drawn.body


def test_a_stream_that_is_left_frees_its_slot(server):
    with server.speaking(LONG) as response:
        response.read(1000)
    until(lambda: server.idle)


def test_long_text_and_short_share_the_engine(server):
    with server.speaking(LONG) as long:
        long.read(1000)
        assert server.speak("Yes.").status == 200
        assert server.metric("num_requests_accepted") == 1  # the long one goes on
        assert len(long.read()) > 5 * 48_000


def test_what_was_spoken_is_counted(server):
    server.speak("Yes.")
    until(lambda: server.metric("e2e_request_latency_seconds_count", recipe="fp32") > 0)
    for name in (
        *("audio_ttfp_seconds", "audio_chunk_interval_seconds", "audio_underrun_seconds"),
        *("audio_rtf", "audio_duration_seconds", "request_queue_time_seconds"),
    ):
        assert server.metric(f"{name}_count", recipe="fp32") > 0
    # whether its listener waited depends on the machine: test_parts counts it by the clock
    whole = server.metric("requests_success_total")
    assert server.metric("audio_continuity_ok_total", threshold_ms="100") <= whole
    assert server.metric("audio_frames_total") > 0
    assert server.metric("requests_success_total", finished_reason="stop") > 0
    assert server.metric("engine_ready") == 1


def test_it_is_measured_as_its_listeners_hear_it(server, tmp_path):
    """By the command that measures any service, on the bundled voice."""
    out = tmp_path / "served.json"
    url = f"http://127.0.0.1:{server.port}"
    load = ("--rate", "1", "--seconds", "3", "--max-seconds", "0.5", "--seed", "3")
    done = subprocess.run(
        command("bench", "serve", url, *load, "--out", out),
        env=ENVIRONMENT,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["served"]
    assert row["model"]["id"] == "nano" and row["max_seconds"] == 0.5
    assert row["outcomes"] == {"ok": row["requests"]} and row["requests"] >= 1
    assert row["ttfa_ms"]["p50"] > 0 and row["rtf"] > 0


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("ffmpeg")),
    reason="curl or ffmpeg is not installed: run `make system`",
)
@pytest.mark.parametrize("format", FORMATS)
def test_curl_pipes_into_ffmpeg(server, tmp_path, format):
    """As in the documentation, while it is made."""
    body = json.dumps({"input": TEXT, "response_format": format})
    url, told = f"http://127.0.0.1:{server.port}/v1/audio/speech", "Content-Type: application/json"
    out = tmp_path / "telephone.wav"
    curl = subprocess.Popen(["curl", "-sN", url, "-H", told, "-d", body], stdout=subprocess.PIPE)
    ffmpeg = ["ffmpeg", "-v", "error", "-i", "-", "-ar", "8000", str(out)]
    done = subprocess.run(ffmpeg, stdin=curl.stdout, capture_output=True, text=True, check=True)
    assert curl.wait() == 0
    assert done.stderr == ""
    samples, rate = decoded(out.read_bytes(), "wav")
    assert rate == 8000 and len(samples) > 4000 and np.abs(samples).max() > 0.05


def test_settings_are_shown_without_keys(tmp_path):
    config = tmp_path / "serve.toml"
    config.write_text('model = "nano"\nrecipe = ["int8"]\nmax_queue = 3\nsend_timeout = 5\n')
    done = subprocess.run(
        command("serve", "--config", config, "--max-queue", 9, "--show-config"),
        env=ENVIRONMENT | {"QUAVER_API_KEY": "never-to-be-shown"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = tomllib.loads(done.stdout)
    assert (shown["recipe"], shown["max_queue"], shown["send_timeout"]) == (["int8"], 9, 5.0)
    assert shown["host"] == "127.0.0.1"
    assert "1 API key" in done.stdout and "never" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-model", "--port", 0], "no-such-model"),
        (["--port", 99999], "port is 99999"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
        (["--config", os.devnull, "--max-streams", 0], "max_streams is 0"),
        (["--config", "missing.toml"], "cannot read missing.toml"),
        (["--api-key-file", "missing"], "cannot read the API keys"),
        (["--recipe", "int8", "--recipe", "int8"], "has one twice"),
        (["--cors-origin", "*"], "give it an API key"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(arguments, message):
    done = subprocess.run(
        command("serve", *arguments),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
