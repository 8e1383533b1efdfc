"""Speech at the rate that was asked for, whatever the model's own rate is."""

import io

import av
import numpy as np
import pytest
from test_live import talking

from quaver.audio.encode import FORMATS, StreamWriter, output_rate, pcm16
from quaver.server.schemas import SpeechRequest
from quaver.server.sound import MEDIA_TYPES, Sound
from scripted import FRAME, tone
from serving import scripted

SEED, COUNT = 9, 7


@pytest.fixture(scope="module", params=[22050, 24000, 44100])
def server(request):
    with scripted(model=f"scripted@{request.param}") as server:
        server.rate = request.param
        yield server


def samples(rate: int) -> np.ndarray:
    """What the model says, in the 16 bits that its engine sends."""
    whole = np.concatenate([tone(SEED, number, rate) for number in range(COUNT)])
    return pcm16(whole).astype(np.float32) / 32768


def written(rate: int, format: str, asked: int | None) -> bytes:
    """The bytes of one piece."""
    sink = io.BytesIO()
    with StreamWriter(sink, rate, format, asked) as writer:
        writer.write(samples(rate))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("format", "asked", "expected"),
    [
        *(("pcm", None, 24000), ("pcm", 8000, 8000), ("pcm", 48000, 48000)),
        *(("g711_ulaw", None, 8000), ("g711_alaw", 8000, 8000), ("wav", 16000, 16000)),
    ],
)
def test_the_bytes_have_the_rate_that_is_told(server, format, asked, expected):
    fields = {"response_format": format, "seed": SEED} | ({"sample_rate": asked} if asked else {})
    answer = server.speak(f"count {COUNT}", **fields)
    assert answer.headers["X-Sample-Rate"] == str(expected)
    assert answer.headers["Content-Type"] == MEDIA_TYPES[format].format(rate=expected)
    size = 1 if format.startswith("g711") else 2
    head = 44 if format == "wav" else 0
    count = round(COUNT * FRAME * expected / server.rate)
    assert len(answer.body) - head == size * count
    assert answer.body[head:] == written(server.rate, format, asked)[head:]
    whole = server.speak(f"count {COUNT}", **fields, stream=False)
    assert whole.body[head:] == answer.body[head:]
    seconds = float(whole.headers["X-Audio-Duration"])
    assert seconds == pytest.approx(COUNT * FRAME / server.rate, abs=1e-3)
    assert seconds == pytest.approx(count / expected, abs=1e-3)


def test_speed_and_rate_go_together(server):
    answer = server.speak("count 20", sample_rate=8000, speed=2)
    expected = 20 * FRAME * 8000 / server.rate / 2
    assert len(answer.body) / 2 == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("format", ["pcm", "g711_ulaw", "g711_alaw"])
def test_a_websocket_tells_the_rate(server, format):
    with talking(server) as talk:
        talk.send("session.config", response_format=format, seed=SEED)
        talk.send("input.text", text=f"count {COUNT}")
        talk.send("input.done")
        messages = talk.until("session.done")
    rate = output_rate(format, server.rate)
    assert (messages[0]["format"], messages[0]["sample_rate"]) == (format, rate)
    sound = b"".join(each for each in messages if isinstance(each, bytes))
    assert sound == written(server.rate, format, None)
    assert messages[-1]["audio_seconds"] == pytest.approx(COUNT * FRAME / server.rate)


def test_a_websocket_refuses_a_rate_that_the_format_has_not(server):
    with talking(server) as talk:
        talk.send("session.config", response_format="g711_ulaw", sample_rate=16000)
        error = talk.next()
    assert (error["type"], error["error"]["param"]) == ("error", "sample_rate")


@pytest.mark.parametrize(
    ("format", "rate"),
    [
        *(("pcm", 7999), ("pcm", 48001), ("pcm", 0), ("wav", -1), ("pcm", "fast"), ("pcm", 1e9)),
        *(("g711_ulaw", 16000), ("g711_alaw", 24000), ("opus", 44100), ("mp3", 23000)),
    ],
)
def test_a_rate_that_a_format_has_not_is_refused(server, format, rate):
    answer = server.speak(response_format=format, sample_rate=rate)
    assert (answer.status, answer.error["param"]) == (400, "sample_rate")


def test_every_format_is_served_and_written_to_files():
    field = SpeechRequest.model_json_schema()["properties"]["response_format"]
    assert {*FORMATS} == MEDIA_TYPES.keys() == {*field["enum"]}


@pytest.mark.parametrize("size", [2, 254, 4096])
def test_pieces_of_any_size_give_the_same_bytes(size):
    pcm = pcm16(samples(24000)).tobytes()
    sound = Sound("pcm", 24000, 1.0, 16000)
    parts = [sound.push(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    assert b"".join([*parts, sound.finish()]) == written(24000, "pcm", 16000)
    assert sound.heavy
    sound.close()


def test_the_models_own_rate_passes_as_it_is():
    sound = Sound("pcm", 24000, 1.0, None)
    data = b"\x01\x02\x03\x04"
    assert sound.push(data) is data and sound.finish() == b"" and not sound.heavy
    sound.close()


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac"])
def test_containers_tell_the_rate(format):
    sound = Sound(format, 22050, 1.0, 16000)
    data = sound.push(pcm16(samples(22050)).tobytes()) + sound.finish()
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams.audio
        frames = sum(frame.samples for frame in container.decode(audio=0))
    assert stream.rate == (48000 if format == "opus" else 16000)  # Opus is always played at 48 kHz
    assert frames / stream.rate == pytest.approx(COUNT * FRAME / 22050, abs=0.2)
