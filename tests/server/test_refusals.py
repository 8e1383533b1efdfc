"""Whatever a stranger sends is answered, and what is wrong is named."""

import json
import re
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripted import VOICES
from serving import PATIENCE, Server, scripted, until

KEY = "a-key-of-the-test"


@pytest.fixture(scope="module")
def server():
    with scripted(max_streams=4, max_queue=64, max_chars=200, max_body=4096) as server:
        yield server
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": " \n"}, "input", "invalid_value"),
        ({"input": "a" * 201}, "input", "string_above_max_length"),
        ({"input": 3}, "input", "invalid_value"),
        ({"input": None}, "input", "invalid_value"),
        ({"voice": "eve"}, "voice", "invalid_value"),
        ({"voice": {"id": "eve"}}, "voice", "invalid_value"),
        ({"voice": {"name": "ada"}}, "voice", "invalid_value"),
        ({"voice": ["ada"]}, "voice", "invalid_value"),
        ({"voice": "../../etc/passwd"}, "voice", "invalid_value"),
        ({"voice": "ada\x00.wav"}, "voice", "invalid_value"),
        ({"voice": "v" * 600}, "voice", "invalid_value"),
        ({"response_format": "mp4"}, "response_format", "invalid_value"),
        ({"stream_format": "chunks"}, "stream_format", "invalid_value"),
        ({"speed": 0.2}, "speed", "invalid_value"),
        ({"speed": 4.1}, "speed", "invalid_value"),
        ({"speed": "fast"}, "speed", "invalid_value"),
        ({"instructions": "i" * 4000 + "i" * 97}, None, "request_too_large"),
        ({"seed": -1}, "seed", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 99}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_k": 2**40}, "top_k", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"max_seconds": 0}, "max_seconds", "invalid_value"),
        ({"max_seconds": 1.7e308}, "max_seconds", "invalid_value"),
        ({"recipe": "int3"}, "recipe", "invalid_value"),
        ({"model": "gpt-5"}, "model", "model_not_found"),
        ({"model": "../scripted"}, "model", "model_not_found"),
        ({"priority": "urgent"}, "priority", "invalid_value"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(server, fields, param, code):
    answer = server.post({"input": "count 1"} | fields)
    status = {"model_not_found": 404, "request_too_large": 413}.get(code, 400)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (status, param, code)
    assert answer.error["type"] == "invalid_request_error"
    assert len(answer.error["message"]) < 400


def test_a_voice_that_is_not_there_is_told_which_are(server):
    assert all(name in server.speak(voice="eve").error["message"] for name in VOICES)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"3", b'"input"', b"null", b"\xff\xfe{}", b'{"input": "\xff"}'),
        *(b'{"input": "a", "speed": NaN}', b'{"input": "a", "speed": 1e999}'),
        b'{"input": "\\ud800"}',
        b'{"input": "count 1"} {}',
        b"[" * 3000,
        b'{"a":' * 700,
    ],
)
def test_a_body_that_is_no_request_is_refused(server, body):
    answer = server.post(body)
    assert answer.status == 400
    assert answer.error["code"] in ("invalid_json", "invalid_value")


def test_unknown_fields_are_ignored(server):
    assert server.speak(lang_code="a", volume_multiplier=1, user={"id": 3}).status == 200


@pytest.mark.parametrize("name", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_said_to_be_json_is_refused(server, name):
    """Else any web page could post here."""
    headers = {} if name is None else {"Content-Type": name}
    answer = server.request("POST", "/v1/audio/speech", b'{"input": "count 1"}', headers)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


def test_a_body_without_end_is_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        head = "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Type: application/json\r\n"
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        answer = b""
        try:
            for _ in range(10_000):
                client.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
        except ConnectionError:
            pass
        try:
            answer = client.recv(1 << 16)
        except ConnectionError:
            return  # it hung up
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "line",
    [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000, b"\r\n" * 9],
)
def test_what_is_not_http_harms_nobody(server, line):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        try:
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
        except ConnectionError:
            pass
    assert server.speak().status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/audio/speech", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/models/../../etc/passwd", 404, "model_not_found"),
        ("GET", "/v1/audio/voices?model=other", 404, "model_not_found"),
        ("GET", "/v1/files", 404, "not_found"),
        ("GET", "/../settings.py", 404, "not_found"),
        ("GET", "/%2e%2e/cli/main.py", 404, "not_found"),
        ("GET", "/..%2fcli/main.py", 404, "not_found"),
        ("DELETE", "/v1/models/scripted", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_told_as_everything_is(server, method, path, status, code):
    answer = server.request(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)


def test_a_browser_asks_whether_the_page_has_changed(server):
    for path in ("/", "/app.js"):
        assert server.get(path).headers["Cache-Control"] == "no-cache"


def test_every_answer_has_a_name_and_tells_pages_their_limits(server):
    for answer in (
        server.get("/health"),
        server.get("/nothing"),
        server.speak(),
        server.post(b"{"),
    ):
        assert answer.headers["X-Request-Id"].startswith("req-")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    names = {
        server.get("/health", X_Request_Id=name).headers["X-Request-Id"] for name in ("a.1", "b c")
    }
    assert "a.1" in names and "b c" not in names


def test_lists_are_as_clients_expect_them(server):
    (model,) = server.get("/v1/models").json["data"]
    assert (model["id"], model["object"], model["recipes"]) == ("scripted", "model", ["fp32"])
    assert server.get("/v1/models/scripted").json == model
    assert server.get("/v1/audio/models").json == {"models": [model]}
    voices = server.get("/v1/audio/voices").json["voices"]
    assert voices == [{"id": name, "name": name} for name in VOICES]


def test_the_api_describes_itself_in_one_piece(server):
    described = server.get("/openapi.json")
    references = re.findall(r'"\$ref":\s*"#/components/schemas/(\w+)"', described.body.decode())
    assert described.body.count(b"$ref") == len(references)
    body = described.json["paths"]["/v1/audio/speech"]["post"]["requestBody"]["content"]
    assert body["application/json"]["schema"]["required"] == ["input"]
    assert {*references} <= described.json["components"]["schemas"].keys()


@pytest.fixture(scope="module")
def locked():
    with scripted(
        {"QUAVER_API_KEY": KEY}, rate_limit=5, cors_origins=["https://a.example"]
    ) as server:
        yield server


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer \xe9\xff"},
        {"Authorization": KEY},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices", "/v1/nothing"])
def test_without_the_key_nothing_of_the_api_answers(locked, headers, path):
    before = locked.metric("requests_refused_total", reason="invalid_api_key")
    answer = locked.request("GET", path, headers=headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert locked.metric("requests_refused_total", reason="invalid_api_key") == before + 1


def test_with_the_key_it_does_and_health_needs_none(locked):
    assert locked.get("/v1/models", Authorization=f"Bearer {KEY}").status == 200
    assert locked.get("/health").status == locked.get("/metrics").status == 200
    assert KEY not in locked.log


def test_too_many_requests_of_a_key_are_refused(locked):
    answers = [locked.post({"input": "count 1"}, Authorization=f"Bearer {KEY}") for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert answers[-1].error["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
    assert locked.metric("requests_refused_total", reason="rate_limit_exceeded") == 1


def test_only_pages_that_were_named_may_read_answers(locked):
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
        answer = locked.request("OPTIONS", "/v1/audio/speech", headers={"Origin": origin, **ask})
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) is allowed


def test_voices_are_listed_without_a_key_where_that_is_wanted():
    with scripted({"QUAVER_API_KEY": KEY}, open_voices=True) as server:
        assert server.get("/v1/audio/voices").status == 200
        assert server.speak().status == 401


def test_two_recipes_are_two_engines_and_one_may_die():
    with scripted(recipe=("fp32", "int8"), max_streams=1) as server:
        ids = [model["id"] for model in server.get("/v1/models").json["data"]]
        assert ids == ["scripted", "scripted:fp32", "scripted:int8"]
        assert server.speak(recipe="int8").headers["X-Recipe"] == "int8"
        assert server.speak(model="scripted:int8").headers["X-Recipe"] == "int8"
        assert server.speak(model="tts-1").headers["X-Recipe"] == "fp32"
        assert server.speak(model="scripted:int8", recipe="fp32").status == 404
        with server.speaking("forever", recipe="int8") as other:
            assert server.speak("die 0").status == 503
            assert len(other.read(50_000)) == 50_000
        until(lambda: server.get("/health/ready").status == 200)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = (
    *(
        "model",
        "voice",
        "response_format",
        "speed",
        "stream_format",
        "stream",
        "instructions",
        "seed",
    ),
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "repetition_window"),
    *("max_seconds", "recipe", "priority", "input"),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_no_values_break_it(server: Server, fields):
    _expect_an_answer(server.post({"input": "count 1"} | fields))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_no_bytes_break_it(server: Server, body):
    _expect_an_answer(server.post(body))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(min_size=1, max_size=60),
    name=st.sampled_from(("mp3", "opus", "aac", "flac", "wav")),
)
def test_no_text_breaks_it(server: Server, text, name):
    try:
        body = json.dumps({"input": f"count 1 {text}", "response_format": name}).encode()
    except UnicodeEncodeError:
        return
    _expect_an_answer(server.post(body))


def _expect_an_answer(answer) -> None:
    assert answer.status in (200, 400, 404), answer.body
    assert not answer.cut
    if answer.status != 200:
        assert answer.error["message"]
