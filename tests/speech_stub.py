"""A speech server for the page's tests: it speaks tones, and fails where it is told to."""

import json
import threading
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import numpy as np

from quaver.server.app import SAFE, WEB

KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
RATE = 16_000
PITCH = {"fp32": 500, "int8": 1000}  # Hz: what each recipe sounds like
LONGEST = 240.0  # seconds that an answer may wait for its test


def sound(recipe: str, seconds: float, quiet: float = 0.0) -> np.ndarray:
    """A tone in 16 bits, after `quiet` seconds of silence that is not quite digital."""
    time = np.arange(round(seconds * RATE)) / RATE
    level = np.where(time < quiet, 0.0005, 0.3 if recipe == "fp32" else 0.5)
    return np.round(level * np.sin(2 * np.pi * PITCH[recipe] * time) * 32767).astype("<i2")


@dataclass
class Answer:
    """How a request for speech goes."""

    seconds: float = 1.0
    quiet: float = 0.0
    chunk: float = 0.1  # seconds of sound in each
    hold_after: int | None = None  # chunks, then wait for `go`
    cut_after: int | None = None  # chunks, then the connection breaks
    refuse: tuple[int, dict[str, str | None]] | None = None
    headers: dict[str, str] = field(default_factory=dict)


class SpeechStub(ThreadingHTTPServer):
    """On a free port of this machine unless told; its fields may be set at any time."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = Answer()
        self.recipes = ["fp32", "int8"]
        self.tags = ["laugh", "sigh"]
        self.key: str | None = None
        self.ready = True
        self.asked: list[dict[str, object]] = []
        self.go, self.gone, self.sent = threading.Event(), threading.Event(), threading.Event()

    @cached_property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Clients leave; that is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SpeechStub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._guarded(self._models)
        elif self.path == "/v1/audio/voices":
            voices = [{"id": name, "name": name.title()} for name in ("ada", "ben")]
            self._guarded(lambda: {"voices": voices})
        else:
            self._file()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        answer = self.server.answer
        if not self._allowed():
            self._unlock()
        elif answer.refuse:
            status, error = answer.refuse
            self._json(status, {"error": error}, answer.headers)
        else:
            self._speak(sound(body["recipe"], answer.seconds, answer.quiet), answer)

    def _speak(self, samples: np.ndarray, answer: Answer) -> None:
        headers = {"Content-Type": f"audio/pcm;rate={RATE}", "X-Sample-Rate": str(RATE)}
        self._head(200, headers | answer.headers)
        size = round(answer.chunk * RATE)
        try:
            for number, start in enumerate(range(0, len(samples), size)):
                if number == answer.hold_after:
                    self.server.sent.set()
                    self._wait()
                if number == answer.cut_after:
                    return
                self._piece(samples[start : start + size].tobytes())
            self._piece(b"")
        except ConnectionError:
            self.server.gone.set()

    def _wait(self) -> None:
        """Until the test says go, or the client is gone."""
        self.connection.settimeout(0.02)
        for _ in range(round(LONGEST / 0.02)):
            if self.server.go.is_set():
                break
            try:
                if self.connection.recv(1) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                continue
        self.connection.settimeout(None)

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _models(self) -> dict[str, object]:
        first, *others = self.server.recipes
        entry = {"object": "model", "recipe": first, "recipes": self.server.recipes}
        entry |= {"tags": self.server.tags, "sample_rate": RATE, "ready": self.server.ready}
        more = [entry | {"id": f"stub:{name}", "recipe": name} for name in others]
        return {"object": "list", "data": [entry | {"id": "stub"}, *more]}

    def _allowed(self) -> bool:
        key = self.server.key
        return key is None or self.headers["Authorization"] == f"Bearer {key}"

    def _guarded(self, make) -> None:
        if self._allowed():
            self._json(200, make())
        else:
            self._unlock()

    def _unlock(self) -> None:
        error = {"message": "Send your key.", "type": "invalid_request_error"}
        self._json(401, {"error": error | {"param": None, "code": "invalid_api_key"}})

    def _file(self) -> None:
        file = WEB / (self.path.removeprefix("/") or "index.html")
        if file.parent != WEB or not file.is_file():
            self._json(404, {"error": {"message": "no such file", "param": None}})
            return
        data = file.read_bytes()
        kind = {"Content-Type": KINDS[file.suffix], "Content-Length": str(len(data))}
        self._head(200, SAFE | kind)
        self.wfile.write(data)

    def _json(self, status: int, content: object, more: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        kind = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._head(status, kind | (more or {}))
        self.wfile.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        if "Content-Length" not in headers:
            headers = headers | {"Transfer-Encoding": "chunked"}
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
