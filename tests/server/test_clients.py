"""What OpenAI's clients, browsers and load balancers send, answered as they expect it."""

import base64
import json
import re
import socket
from pathlib import Path

import numpy as np
import openai
import pytest
from test_live import talking

import quaver
from quaver.server.cors import EXPOSED
from quaver.server.schemas import SessionConfig, SpeechRequest, is_default_model, parse
from scripted import FRAME, RATE, tone
from serving import PATIENCE, scripted

KEY = "a-key-of-the-test"
BEARER = {"Authorization": f"Bearer {KEY}"}
PAGE, OTHER = "https://a.example", "https://b.example"
SPEECH = "/v1/audio/speech"
PATHS = (
    *("/", "/app.js", "/health", "/health/ready", "/metrics", "/openapi.json"),
    *("/v1/models", "/v1/models/scripted", "/v1/models/tts-1-1106", "/v1/audio/models"),
    *("/v1/audio/voices", "/v1/audio/voices?model=tts-1-hd"),
)
# What openai-node 6 sends, and what other clients of its kind do.
CLIENT_HEADERS = (
    *("authorization", "content-type", "accept", "user-agent", "idempotency-key"),
    *("openai-organization", "openai-project", "openai-beta", "x-client-request-id"),
    *("x-stainless-arch", "x-stainless-lang", "x-stainless-os", "x-stainless-package-version"),
    *("x-stainless-runtime", "x-stainless-runtime-version", "x-stainless-retry-count"),
    *("x-stainless-timeout", "x-stainless-helper-method", "x-stainless-poll-helper"),
    *("x-stainless-raw-response", "x-request-id", "http-referer", "x-title", "x-api-key"),
    "a-header-of-next-year",
)
# Headers that browsers show anyway, or that no script reads.
NOT_FOR_SCRIPTS = {
    *("cache-control", "content-length", "content-type", "last-modified", "date", "server"),
    *("connection", "transfer-encoding", "vary", "etag", "accept-ranges", "x-accel-buffering"),
    *("content-security-policy", "x-content-type-options", "referrer-policy"),
}


@pytest.fixture(scope="module")
def server():
    with scripted(
        {"QUAVER_API_KEY": KEY},
        max_streams=2,
        max_queue=0,
        max_body=4096,
        max_chars=300,
        cors_origins=[PAGE],
    ) as server:
        yield server
        assert server.log.count("Traceback") == server.log.count("RuntimeError: as it was told")


def ask(server, method, path, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request(method, path, headers=BEARER | headers)


def preflight(server, origin=PAGE, method="POST", names="content-type", **more):
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    asked |= {"Access-Control-Request-Headers": names} if names else {}
    return server.request("OPTIONS", SPEECH, headers=asked | more)


def test_a_page_may_send_what_a_client_sends(server):
    answer = preflight(server, names=",".join(CLIENT_HEADERS))
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert allowed == [*CLIENT_HEADERS]  # and not *, which leaves out Authorization
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert int(answer.headers["Access-Control-Max-Age"]) >= 600
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Private-Network" not in answer.headers


@pytest.mark.parametrize("name", CLIENT_HEADERS)
def test_each_header_is_allowed_alone(server, name):
    assert preflight(server, names=name).headers["Access-Control-Allow-Headers"] == name


def test_a_page_on_the_internet_may_reach_a_private_network(server):
    answer = preflight(server, **{"Access-Control-Request-Private-Network": "true"})
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (204, {"names": ""}),
        (204, {"method": "GET"}),
        (204, {"names": " , content-type,"}),
        (403, {"origin": OTHER}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://["}),
        (400, {"method": "DELETE"}),
        (400, {"names": "content-type, a b"}),
        (400, {"names": "a:b"}),
        (400, {"names": "x" * 65}),
        (400, {"names": ",".join(f"x-{number}" for number in range(65))}),
    ],
)
def test_a_preflight_is_answered(server, status, fields):
    answer = preflight(server, **fields)
    assert answer.status == status
    named = fields.get("origin", PAGE) == PAGE
    assert answer.headers.get("Access-Control-Allow-Origin") == (PAGE if named else None)
    if status != 204:
        assert answer.error["message"]
        assert "Access-Control-Allow-Headers" not in answer.headers


def spoken(server, **fields):
    body = json.dumps({"input": "count 2", "response_format": "pcm"} | fields).encode()
    kind = {"Content-Type": "application/json", "Origin": PAGE}
    return server.request("POST", SPEECH, body, BEARER | kind)


def answers(server):
    """One answer of each kind, with the status that it has."""
    page, kind = {"Origin": PAGE}, {"Content-Type": "application/json", "Origin": PAGE}
    yield 200, ask(server, "GET", "/v1/models", **page)
    yield 200, ask(server, "HEAD", "/", **page)
    yield 200, spoken(server)
    yield 200, spoken(server, stream=False)
    yield 200, spoken(server, stream_format="sse")
    yield 400, spoken(server, voice="eve")
    yield 401, server.request("POST", SPEECH, b"{}", kind)
    yield 404, spoken(server, model="gpt-5")
    yield 405, ask(server, "DELETE", "/v1/models", **page)
    yield 413, server.request("POST", SPEECH, b"a" * 5000, BEARER | kind)
    yield 415, ask(server, "POST", SPEECH, **page)
    with server.speaking_with(BEARER, "forever"), server.speaking_with(BEARER, "forever"):
        yield 429, spoken(server)
    yield 503, spoken(server, input="die 0")
    server.wait_ready()


def test_pages_read_every_answer_and_every_header_of_ours(server):
    exposed = {name.lower() for name in EXPOSED}
    for status, answer in answers(server):
        assert answer.status == status, answer.body
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE, status
        told = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
        assert set(told) == exposed
        names = {name.lower() for name in answer.headers}
        hidden = {name for name in names if not name.startswith("access-control-")}
        assert hidden - NOT_FOR_SCRIPTS <= exposed, status
        if status in (429, 503):
            assert answer.headers["Retry-After"].isdigit()


def test_every_header_in_the_sources_is_exposed():
    folder = Path(quaver.__file__).parent / "server"
    found = {
        name.lower()
        for path in folder.glob("*.py")
        for name in re.findall(r'"(X-[A-Z][A-Za-z-]+|Retry-After|Server-Timing)"', path.read_text())
    }
    assert len(found) > 8
    assert found - NOT_FOR_SCRIPTS <= {name.lower() for name in EXPOSED}


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_its_body(server, path):
    whole, head = ask(server, "GET", path), ask(server, "HEAD", path)
    assert (head.status, head.body) == (whole.status, b"") and whole.status == 200
    changing = {"x-request-id", "date", *(["content-length"] if path == "/metrics" else [])}
    ours, theirs = (
        {name: value for name, value in each.headers.items() if name.lower() not in changing}
        for each in (head, whole)
    )
    assert ours == theirs
    assert int(head.headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices"])
def test_head_needs_the_key_that_get_needs(server, path):
    assert server.request("HEAD", path).status == 401


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/scripted", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/app.js", "GET, HEAD, OPTIONS"),
        (SPEECH, "POST, OPTIONS"),
    ],
)
def test_other_methods_are_told_which_there_are(server, path, allowed):
    asked = server.request("OPTIONS", path)  # which needs no key
    assert (asked.status, asked.headers["Allow"], asked.body) == (204, allowed, b"")
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        refused = ask(server, method, path)
        assert (refused.status, refused.headers["Allow"]) == (405, allowed)
        assert refused.error["code"] == "method_not_allowed"
    if "HEAD" not in allowed:
        refused = ask(server, "HEAD", path)
        assert (refused.status, refused.headers["Allow"], refused.body) == (405, allowed, b"")


@pytest.mark.parametrize("path", ["/nothing", "/v1/chat/completions", "/%00", "/" + "a" * 300])
def test_what_is_not_there_is_not_found_by_any_method(server, path):
    for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
        answer = ask(server, method, path)
        assert answer.status == 404
        assert method == "HEAD" or answer.error["code"] == "not_found"


OPTIONAL = [
    (schema, name)
    for schema in (SpeechRequest, SessionConfig)
    for name, field in schema.model_fields.items()
    if not field.is_required()
]


@pytest.mark.parametrize("blank", [None, ""])
@pytest.mark.parametrize(("schema", "name"), OPTIONAL)
def test_null_and_nothing_are_the_default(schema, name, blank):
    plain = parse(schema, json.dumps({"input": "a"}))
    assert parse(schema, json.dumps({"input": "a", name: blank})) == plain


def test_a_request_full_of_nulls_is_spoken(server):
    nulls = {name: None for schema, name in OPTIONAL if schema is SpeechRequest}
    answer = spoken(server, **nulls | {"seed": 3})
    assert answer.headers["Content-Type"] == "audio/mpeg"
    assert spoken(server, **nulls | {"response_format": "pcm", "seed": 3}).body == pcm(3, 2)
    with talking(server, additional_headers=BEARER) as talk:
        talk.send("session.config", **{name: None for _, name in OPTIONAL})
        talk.send("input.text", text="count 1")
        talk.send("input.done")
        start = talk.until("session.done")[0]
    assert (start["format"], start["sample_rate"]) == ("pcm", RATE)


def pcm(seed: int, count: int) -> bytes:
    samples = np.concatenate([tone(seed, number) for number in range(count)])
    return np.rint(samples * 32768).astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"speed": "1.0"}, 200),  # as pydantic on OpenAI's side takes it
        ({"seed": "7"}, 200),
        ({"sample_rate": "16000"}, 200),
        ({"stream": "false"}, 200),
        ({"stream": 0}, 200),
        ({"speed": "fast"}, 400),
        ({"speed": "nan"}, 400),
        ({"speed": True}, 400),
        ({"seed": True}, 400),
        ({"seed": False}, 400),
        ({"temperature": True}, 400),
        ({"sample_rate": 16000.5}, 400),
        ({"stream": "perhaps"}, 400),
        ({"voice": 3}, 400),
        ({"voice": {"id": None}}, 400),
        ({"voice": {"id": ""}}, 200),
    ],
)
def test_a_value_of_another_type(server, fields, status):
    answer = spoken(server, **fields)
    assert answer.status == status
    assert status == 200 or answer.error["param"] in fields


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((None, True), ("", True), ("tts-1", True), ("tts-1-hd", True)),
        *(("tts-1-1106", True), ("tts-1-hd-1106", True), ("tts-1-2027-01-31", True)),
        *(("gpt-4o-mini-tts", True), ("gpt-4o-mini-tts-2025-12-15", True)),
        *(("gpt-4o-mini-tts-2025-03-20", True), ("gpt-4o-mini-tts-0613", True)),
        *(("-1106", False), ("tts-1-", False), ("tts-1-11", False), ("tts-1-11066", False)),
        *(("tts-1-hd-1106-x", False), ("tts-1-2025-12", False), ("gpt-4o-mini", False)),
        *(("TTS-1", False), ("tts-2", False), ("xtts-1", False), ("tts-1-1106\n", False)),
    ],
)
def test_openais_models_mean_the_first_dated_or_not(server, name, meant):
    assert is_default_model(name) is meant
    answer = spoken(server, model=name)
    assert (answer.status, answer.headers.get("X-Model")) == (
        (200, "scripted") if meant else (404, None)
    )
    if meant and name:
        model = ask(server, "GET", f"/v1/models/{name}").json
        assert (model["id"], model["family"]) == (name, "scripted")
        assert ask(server, "GET", f"/v1/audio/voices?model={name}").status == 200


def test_an_empty_name_is_no_model_of_the_list(server):
    assert ask(server, "GET", "/v1/models/").status in (200, 404)
    assert ask(server, "GET", "/v1/audio/voices?model=").status == 200


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": "count 2 \ud83d"}, 200, None),
        ({"input": "\ud83d"}, 400, "input"),
        ({"instructions": "calm \ud83d"}, 200, None),
        ({"voice": "\ud83d"}, 400, "voice"),
        ({"voice": {"id": "a\udc00"}}, 400, "voice"),
        ({"model": "\ud83d"}, 400, "model"),
        ({"recipe": "\ud83d"}, 400, "recipe"),
        ({"response_format": "\ud83d"}, 400, "response_format"),
        ({"priority": "\ud83d"}, 400, "priority"),
        ({"user": "\ud83d", "\ud83d": 1}, 200, None),
    ],
)
def test_a_lone_surrogate_is_never_a_failure_of_the_server(server, fields, status, param):
    answer = spoken(server, **fields)
    assert answer.status == status
    assert status == 200 or answer.error["param"] == param


def test_a_character_in_two_messages_is_one(server):
    with talking(server, additional_headers=BEARER) as talk:
        for piece in ("count 1 caf\u00e9 \ud835", "\udd38 then", " \ud83d", " end"):
            talk.send("input.text", text=piece)
        talk.send("input.done")
        start = talk.until("session.done")[0]
    assert start["sentence_text"] == "count 1 caf\u00e9 \U0001d538 then end"


def raw_answer(port: int, **fields) -> bytes:
    """All bytes of an answer, until the server hangs up or the body ends."""
    body = json.dumps(fields).encode()
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(head.encode() + body)
        while not data.endswith(b"\r\n0\r\n\r\n") and (more := client.recv(1 << 16)):
            data += more
    return data


@pytest.mark.parametrize("format", ["pcm", "mp3", "wav", "g711_ulaw"])
@pytest.mark.parametrize("stream_format", ["sse", "audio"])
@pytest.mark.parametrize("command", ["fail"])
def test_an_error_after_the_first_sound_breaks_the_connection(
    server, command, stream_format, format
):
    """Clients that know no events take a clean end for a whole stream."""
    fields = {"response_format": format, "stream_format": stream_format}
    data = raw_answer(server.port, input=f"{command} 9", **fields)
    server.wait_ready()
    assert data.startswith(b"HTTP/1.1 200 ")
    assert not data.endswith(b"\r\n0\r\n\r\n")
    events = [json.loads(each) for each in re.findall(rb"data: (\{.*\})", data)]
    if stream_format == "sse":
        code = {"die": "engine_lost", "fail": "request_failed"}[command]
        assert (events[-1]["type"], events[-1]["error"]["code"]) == ("speech.audio.error", code)
        assert "speech.audio.delta" in [each["type"] for each in events]
    whole = raw_answer(server.port, input="count 2", **fields)
    assert whole.endswith(b"\r\n0\r\n\r\n")


def test_an_engine_that_dies_breaks_the_connection_too(server):
    test_an_error_after_the_first_sound_breaks_the_connection(server, "die", "sse", "pcm")


def test_openais_client_reads_events_headers_and_rates(server):
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0
    )
    asked = {"model": "gpt-4o-mini-tts-2025-12-15", "voice": "alloy", "input": "count 3"}
    with client.audio.speech.with_streaming_response.create(
        **asked, response_format="pcm", stream_format="sse", extra_body={"seed": 5}
    ) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    sound = b"".join(base64.b64decode(each["audio"]) for each in events[:-1])
    assert (sound, events[-1]["type"]) == (pcm(5, 3), "speech.audio.done")
    raw = client.audio.speech.with_raw_response.create(
        **asked, response_format="pcm", extra_body={"sample_rate": 8000}
    )
    assert raw.headers["X-Sample-Rate"] == "8000"
    assert len(raw.content) == 2 * (FRAME * 3 // 3)
    assert client.models.retrieve("tts-1-hd").id == "tts-1-hd"
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.speech.create(**asked, extra_body={"sample_rate": 7000})
    assert refused.value.param == "sample_rate"
    asked |= {"input": "fail 9"}
    with (
        pytest.raises(Exception, match="without sending complete message body"),
        client.audio.speech.with_streaming_response.create(**asked) as answer,
    ):
        answer.read()


@pytest.fixture(scope="module")
def described(server):
    return server.get("/openapi.json").json


def test_every_status_is_documented(server, described):
    for status, answer in answers(server):
        if answer.headers.get("Allow") or answer.status == 200:
            continue
        documented = described["paths"][SPEECH]["post"]["responses"]
        assert str(status) in documented
        body = documented[str(status)]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/ErrorBody"}
    speech = described["paths"][SPEECH]["post"]["responses"]
    assert {"200", "400", "401", "404", "408", "413", "415", "429", "500", "503"} <= {*speech}
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert ("401" in operation["responses"]) is path.startswith("/v1")


def test_answers_are_of_the_documented_type(server, described):
    for path, status in (("/metrics", "200"), ("/health", "200"), ("/v1/models", "200")):
        (kind,) = described["paths"][path]["get"]["responses"][status]["content"]
        assert ask(server, "GET", path).headers["Content-Type"].partition(";")[0] == kind
    speech = described["paths"][SPEECH]["post"]["responses"]["200"]["content"]
    for format in described_request(described)["response_format"]["anyOf"][0]["enum"]:
        kind = spoken(server, response_format=format).headers["Content-Type"]
        assert kind.partition(";")[0] in speech
    assert "text/event-stream" in speech


def described_request(described) -> dict:
    body = described["paths"][SPEECH]["post"]["requestBody"]["content"]["application/json"]
    return body["schema"]["properties"]


def test_the_schema_says_what_is_allowed(described):
    fields = described_request(described)
    assert fields["input"]["minLength"] == 1
    assert fields.keys() == SpeechRequest.model_fields.keys()
    for name, field in fields.items():
        assert (name == "input") is ({"type": "null"} not in field.get("anyOf", ()))
    rate = fields["sample_rate"]["anyOf"][0]
    assert (rate["type"], rate["minimum"], rate["maximum"]) == ("integer", 8000, 48000)
    assert fields["speed"]["anyOf"][0] == {"type": "number", "minimum": 0.25, "maximum": 4.0}
