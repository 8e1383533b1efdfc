"""What hostile clients cost a server: memory, delay for others, errors.

Starts a server with a scripted engine on this machine's loopback address and sends it random and
broken requests and WebSocket frames, while a polite client asks for /health every 10 ms. Nothing
but the server that it started is ever asked.

    python benchmarks/attack.py --requests 10000 --connections 200 --out attack.json
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from quaver.bench.machine import write_result
from quaver.bench.measure import percentiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from serving import Server, scripted

HOST = b"Host: localhost\r\n"
METHODS = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"get", b"\x00")
PATHS = (
    *(b"/", b"/health", b"/v1/models", b"/v1/audio/speech", b"/v1/audio/voices", b"*", b"//x"),
    *(b"/%ff%00", b"/../../etc/passwd", b"/" + b"a" * 40_000, b"/v1/models/" + b"%41" * 99),
)
HEADERS = (
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Expect: 100-continue\r\n", b"Content-Type: application/json\r\n", b"Origin: http://[\r\n"),
    *(b"X-Request-Id: \xff\xfe\r\n", b"Authorization: Bearer \xff\r\n", b"a: b\r\n" * 150),
    *(b"X-Forwarded-For: " + b"1" * 9000 + b"\r\n", b"Host: evil.example\r\n", b"no colon\r\n"),
)
BODIES = (
    *(b"", b"{}", b"{", b'{"input": 5}', b'{"input": "count 1"}', b'{"input": "\\ud83d"}'),
    *(b'{"input": "a", "max_seconds": 1e308}', b"[" * 3000, b"\xff" * 99, b"5\r\n{}\r\n0\r\n\r\n"),
    b'{"input": "a", "seed": ' + b"9" * 4000 + b"}",
)
UPGRADE = (
    b"GET /v1/audio/speech/stream HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PATIENCE = 60.0  # seconds, after which a request hangs
SAMPLE_SECONDS = 1.0


@dataclass
class Found:
    """What became of all requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)  # of the polite client, seconds
    memory: list[tuple[float, float, float]] = field(default_factory=list)  # s, MB, MB


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=200, help="at once")
    parser.add_argument("--seconds", type=float, default=1800.0, help="at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    with scripted() as server:
        files = _files(server)
        found, started = Found(), time.perf_counter()
        asyncio.run(_attack(server, wanted, found))
        seconds = time.perf_counter() - started
        time.sleep(2.0)
        result = {
            "requests": sum(found.statuses.values()),
            "connections": wanted.connections,
            "seconds": seconds,
            "statuses": dict(found.statuses.most_common()),
            "health_ms": percentiles([1e3 * delay for delay in found.delays]),
            "health_max_ms": 1e3 * max(found.delays),
            "front_mb": [round(each[1], 1) for each in _quarters(found.memory)],
            "engine_mb": [round(each[2], 1) for each in _quarters(found.memory)],
            "open_files": [files, _files(server)],
            "tracebacks": server.log.count("Traceback"),
            "log_lines": server.log.count("\n"),
            "load_average": os.getloadavg()[0],
        }
        answers = server.get("/health").status == 200
    for name, value in result.items():
        print(f"{name:>14}: {value}")
    if wanted.out is not None:
        write_result(wanted.out, result)
    broken = any(status[0] == "5" and status != "503" for status in found.statuses)
    raise SystemExit(bool(broken or result["tracebacks"] or found.statuses["hung"] or not answers))


async def _attack(server: Server, wanted: argparse.Namespace, found: Found) -> None:
    numbers = iter(range(wanted.requests))
    ends = time.monotonic() + wanted.seconds
    watching = [asyncio.create_task(_ask_politely(server, found))]
    watching.append(asyncio.create_task(_weigh(server, found)))

    async def attacker(seed: int) -> None:
        generator = random.Random(seed)
        for _ in numbers:
            if time.monotonic() > ends:
                return
            found.statuses[await _one(server.port, generator)] += 1

    await asyncio.gather(*(attacker(wanted.seed * 10_000 + n) for n in range(wanted.connections)))
    for task in watching:
        task.cancel()


async def _one(port: int, generator: random.Random) -> str:
    """Send something; returns the status, or what happened instead."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return await _send(reader, writer, generator)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return "hung"
    except OSError:
        return "reset"


async def _send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, generator: random.Random
) -> str:
    kind = generator.random()
    if kind < 0.2:
        writer.write(UPGRADE)
        for _ in range(generator.randrange(1, 40)):
            body = generator.randbytes(generator.choice([0, 0, 1, 7, 125]))
            first = generator.choice([0x81, 0x01, 0x00, 0x89, 0x88, generator.randrange(256)])
            writer.write(bytes([first, len(body) | 0x80]) + b"\0\0\0\0" + body)
    else:
        writer.write(_request(generator))
    await writer.drain()
    if kind > 0.9:
        return "left"
    answer = await reader.read(64)
    return answer.split()[1].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


def _request(generator: random.Random) -> bytes:
    head = generator.choice(METHODS) + b" " + generator.choice(PATHS) + b" HTTP/1.1\r\n"
    head += b"".join(generator.sample(HEADERS, generator.randrange(4)))
    if generator.random() < 0.9:
        head += HOST
    body = generator.choice(BODIES)
    if generator.random() < 0.6:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head + b"Connection: close\r\n\r\n" + body


async def _ask_politely(server: Server, found: Found) -> None:
    while True:
        started = time.perf_counter()
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
            if (await reader.read()).startswith(b"HTTP/1.1 200"):
                found.delays.append(time.perf_counter() - started)
            writer.close()
        await asyncio.sleep(0.01)


async def _weigh(server: Server, found: Found) -> None:
    while True:
        now, engine = time.perf_counter(), server.engine_pid()
        found.memory.append((now, _memory(server.process.pid), _memory(engine)))
        await asyncio.sleep(SAMPLE_SECONDS)


def _quarters(samples: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """The first, the last and three between."""
    return [samples[(len(samples) - 1) * quarter // 4] for quarter in range(5)]


def _memory(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def _files(server: Server) -> int:
    return len([*Path(f"/proc/{server.process.pid}/fd").iterdir()])


if __name__ == "__main__":
    main()
