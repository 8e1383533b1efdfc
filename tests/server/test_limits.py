"""What comes before a request is known: heads, bodies, connections and frames without an end."""

import json
import os
import random
import signal
import socket
import struct
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from serving import PATIENCE, scripted, served, until

HOST = b"Host: localhost\r\n"
MASK = b"\0\0\0\0"
UPGRADE = (
    b"GET /v1/audio/speech/stream HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
POST = b"POST /v1/audio/speech HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server():
    settings = {"header_timeout": 1.0, "body_timeout": 1.0, "max_connections": 40}
    with scripted(max_streams=2, max_connections_per_address=40, **settings) as server:
        yield server
        assert "Traceback" not in server.log
        assert "ERROR" not in server.log


@pytest.fixture(autouse=True)
def _goes_on(server):
    yield
    assert server.get("/health").status == 200


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)


def read_all(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    with suppress(ConnectionError):
        while data := client.recv(1 << 16):
            found += data
    return found


def send(server, *pieces: bytes) -> bytes:
    with connect(server) as client:
        with suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
        return read_all(client)


def error(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def memory(server) -> int:
    """MB of the front process."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096 // 2**20


@pytest.mark.parametrize(
    "pieces",
    [
        [b"a:b\r\n" * 20_000] * 100,  # 10 MB of headers
        [b"a: ", *[b"x" * 100_000] * 100],  # one of 10 MB
        [b"a:b\r\n" * 101, b"\r\n"],  # more than 100
        [b"a: " + b"x" * 40_000 + b"\r\n\r\n"],
    ],
    ids=["many", "long", "count", "bytes"],
)
def test_a_head_has_so_many_bytes_and_headers(server, pieces):
    before = memory(server)
    answer = send(server, b"GET /health HTTP/1.1\r\n" + HOST, *pieces)
    if answer:  # else the connection was reset while we sent
        assert error(answer) == (431, "head_too_large")
    assert memory(server) - before < 8
    assert server.metric("client_errors_total", kind="head_too_large") >= 1


def test_half_a_head_is_answered_and_closed(server):
    answer = send(server, b"GET /health HTTP/1.1\r\nHost: lo")
    assert error(answer) == (408, "request_timeout")


def test_a_connection_without_a_request_is_closed(server):
    assert send(server) == b""


def test_a_body_that_does_not_come_ends_its_connection(server):
    answer = send(server, POST + b"Content-Length: 100\r\n\r\n{")
    assert error(answer) == (408, "request_timeout")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # TLS
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost localhost\r\n\r\n",
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h3\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server, request_):
    answer = send(server, request_)
    assert answer == b"" or error(answer)[0] == 400


def test_requests_that_wait_on_one_connection_are_few(server):
    request = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
    last = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    assert send(server, request * 2 + last).count(b"200 OK") == 3
    assert send(server, request * 500 + last).count(b"200 OK") < 20


def test_half_requests_do_not_keep_others_out(server):
    with ExitStack() as opened:
        for _ in range(120):
            client = opened.enter_context(connect(server))
            with suppress(ConnectionError):
                client.sendall(b"GET /health HTTP/1.1\r\nHost: lo")
        assert server.get("/health").status == 200
    assert server.metric("client_errors_total", kind="evicted") > 0


def test_clients_that_leave_while_they_send_are_counted(server):
    for _ in range(5):
        with connect(server) as client:
            client.sendall(POST + b"Content-Length: 100\r\n\r\n{")
    until(lambda: server.metric("client_errors_total", kind="left_while_sending") >= 5)


def test_a_second_request_on_a_connection_is_answered(server):
    body = b'{"input": "count 2", "response_format": "pcm", "stream": false}'
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answers = send(server, request, request.replace(HOST, HOST + b"Connection: close\r\n"))
    assert answers.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("path", [b"/v1/models/", b"/v1/audio/voices/"])
def test_no_redirect_names_the_host_that_was_sent(server, path):
    answer = send(server, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    foreign = b"GET " + path + b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert error(send(server, foreign)) == (421, "host_not_allowed")


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (b"http://[", b"localhost", b"403"),
        (b"http://evil.example", b"localhost", b"403"),
        (b"null", b"localhost", b"403"),
        (b"http://evil.example", b"evil.example", b"421"),
        (b"http://localhost", b"localhost", b"101"),
    ],
)
def test_a_handshake_of_a_page_elsewhere_is_refused(server, origin, host, status):
    head = UPGRADE.replace(b"localhost", host) + b"Origin: " + origin + b"\r\n\r\n"
    with connect(server) as client:
        client.sendall(head)
        assert client.recv(100).split()[1] == status


class WebSocket:
    """Raw frames after a handshake."""

    def __init__(self, server) -> None:
        self.socket = connect(server)
        self.socket.sendall(UPGRADE + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1)
        assert b" 101 " in answer

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def close_code(self) -> int | None:
        """What the server closes with, past other frames without sound."""
        data = read_all(self.socket)
        at = data.rfind(b"\x88")
        return struct.unpack(">H", data[at + 2 : at + 4])[0] if at >= 0 else None


@pytest.mark.parametrize(
    "frames",
    [
        (b"\x89\x80" + MASK) * 20_000,
        (b"\x81\x81" + MASK + b"x") * 10_000,
        b"\x01\x80" + MASK + (b"\x00\x80" + MASK) * 1000,
    ],
    ids=["pings", "texts", "fragments"],
)
def test_tiny_frames_leave_the_loop_to_others(server, frames):
    """While one client's frames wait to be parsed, another's requests are answered."""
    with WebSocket(server) as flood:
        sending = threading.Thread(target=lambda: _send_quietly(flood.socket, frames))
        sending.start()
        answered = 0
        while sending.is_alive() or answered < 5:
            assert server.get("/health").status == 200
            answered += 1
            if answered > 200:
                break
        flood.socket.shutdown(socket.SHUT_RDWR)
        sending.join(PATIENCE)


def _send_quietly(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x82" + MASK + b"\xff\xfe", 1007),
        (b"\xf1\x82" + MASK + b"ab", 1002),  # reserved bits
        (b"\x81\x02ab", 1002),  # not masked
        (b"\x83\x82" + MASK + b"ab", 1002),  # no such opcode
        (b"\x01\x80" + MASK + (b"\x00\x80" + MASK) * 2000, 1009),
        (b"\x81\xff" + struct.pack(">Q", 2**40) + MASK, 1009),
    ],
)
def test_broken_frames_have_their_close_code(server, frames, code):
    with WebSocket(server) as client:
        client.socket.sendall(frames)
        assert client.close_code() == code
    assert server.metric("client_errors_total", kind="websocket_protocol") >= 1


def send_random_frames(server, count: int) -> None:
    generator = random.Random(7)
    for _ in range(count):
        with WebSocket(server) as client, suppress(OSError):
            for _ in range(generator.randrange(1, 12)):
                body = generator.randbytes(generator.choice([0, 1, 7, 125]))
                first = generator.randrange(256)
                length = len(body) | (0x80 if generator.random() < 0.9 else 0)
                client.socket.sendall(bytes([first, length]) + MASK + body)


def send_random_requests(server, count: int) -> None:
    """None may get an error of ours."""
    generator = random.Random(11)
    methods = [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"PATCH", b"\x00", b"get"]
    paths = [b"/", b"/v1/models", b"/v1/audio/speech", b"/%ff%00", b"*", b"//x", b"/" + b"a" * 9000]
    headers = [
        HOST,
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Content-Type: application/json\r\n",
        b"X-Request-Id: \xff\xfe\r\n",
        b"Origin: \xf0\x28\r\n",
        b"Authorization: Bearer \xff\r\n",
        b"Range: bytes=0-\r\n",
    ]
    for _ in range(count):
        head = generator.choice(methods) + b" " + generator.choice(paths) + b" HTTP/1.1\r\n"
        head += b"".join(generator.sample(headers, generator.randrange(6))) + HOST
        body = generator.choice(
            [b"", b"{}", b'{"input": 5}', b'5\r\n{"a":\r\n0\r\n\r\n', b"\xff" * 9]
        )
        answer = send(server, head + b"Connection: close\r\n\r\n" + body)
        status = int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 400
        assert status < 500 or status == 503, head


def test_random_requests_and_frames_break_nothing(server):
    send_random_requests(server, 150)
    send_random_frames(server, 30)


@pytest.mark.slow
def test_random_requests_and_frames_break_no_real_engine():
    with served("nano", "--recipe", "int8") as real:
        for text in ("Hello 🎉", "**Bold** $5", "\u202eabc", "a" * 4096, "<laugh>", "\x00\ud7ff"):
            assert real.speak(text, max_seconds=0.2).status in (200, 400)
        send_random_requests(real, 60)
        send_random_frames(real, 10)
        assert real.speak("Still here.", max_seconds=0.5).status == 200
        assert "Traceback" not in real.log


def test_a_stopped_engine_is_not_ready_and_refuses():
    with scripted() as server:
        pid = server.engine_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: server.get("/health/ready").status == 503)
            answer = server.speak()
            assert (answer.status, answer.error["code"]) == (503, "not_ready")
            assert server.get("/health/ready").json["engines"]["fp32"]["status"] == "silent"
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: server.get("/health/ready").status == 200)
        assert server.speak().status == 200
