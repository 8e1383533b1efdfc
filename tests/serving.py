"""A server as a process on a real port, and what a client sees of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from command import ENVIRONMENT, command

SCRIPTED = Path(__file__).with_name("serve_scripted.py")
PATIENCE = 240.0  # seconds, on a machine that is busy; after that something hangs


class Server:
    """A running server; what it says on stderr is kept."""

    def __init__(self, arguments: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            arguments, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | environment
        )
        self.told: list[str] = []
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(line)
            if found := re.search(r"listening on http://\S+:(\d+)", line):
                self.port = int(found[1])

    @property
    def log(self) -> str:
        return "".join(self.told)

    def wait_ready(self) -> None:
        until(lambda: self.port or self.process.poll() is not None)
        assert self.port, self.log
        until(self._ready_or_dead)
        assert self.process.poll() is None, self.log

    def _ready_or_dead(self) -> bool:
        return self.process.poll() is not None or self.get("/health/ready").status == 200

    def end(self) -> int:
        """Its status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request(
            "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    def speak(self, text: str = "count 3", **fields: Any) -> Answer:
        return self.post({"input": text, "response_format": "pcm"} | fields)

    def post(self, content: Any, **headers: str) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.request(
            "POST", "/v1/audio/speech", body, {"Content-Type": "application/json"} | headers
        )

    def speaking(
        self, text: str, **fields: Any
    ) -> AbstractContextManager[http.client.HTTPResponse]:
        """A response whose body is still to be read; leaving the block hangs up."""
        return self.speaking_with({}, text, **fields)

    @contextmanager
    def speaking_with(
        self, headers: dict[str, str], text: str, **fields: Any
    ) -> Iterator[http.client.HTTPResponse]:
        """The same, with more headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        body = json.dumps({"input": text, "response_format": "pcm"} | fields)
        kind = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/audio/speech", body, kind | headers)
        response = connection.getresponse()
        try:
            yield response
        finally:
            response.close()
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        found = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == f"quaver:{name}":
                found += float(value) * all(f'{k}="{v}"' in head for k, v in labels.items())
        return found

    @property
    def idle(self) -> bool:
        """Whether no stream is accepted, nor in an engine."""
        names = ("num_requests_accepted", "num_requests_running", "num_requests_waiting")
        return not any(self.metric(name) for name in names)

    def engine_pid(self) -> int:
        """The first child of the server's process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def kill_engine(self) -> None:
        os.kill(self.engine_pid(), signal.SIGKILL)


class Answer:
    """A response that was read whole; `cut` tells whether its body has no end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self.cut = False
        try:
            self.body = response.read()
        except http.client.IncompleteRead as error:
            self.body, self.cut = error.partial, True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error


def until(fine: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not _try(fine):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def _try(fine: Callable[[], Any]) -> bool:
    try:
        return bool(fine())
    except ConnectionError:
        return False


@contextmanager
def scripted(environment: dict[str, str] | None = None, **settings: Any) -> Iterator[Server]:
    """A server of scripted engines."""
    arguments = [sys.executable, str(SCRIPTED), json.dumps(settings)]
    with _ended(Server(arguments, **environment or {})) as server:
        server.wait_ready()
        yield server


@contextmanager
def served(*arguments: object) -> Iterator[Server]:
    """`quaver serve` with these arguments."""
    with _ended(Server(command("serve", *arguments, "--port", 0))) as server:
        server.wait_ready()
        yield server


@contextmanager
def _ended(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
