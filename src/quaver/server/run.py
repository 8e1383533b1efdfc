"""Running a service: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from quaver.core.errors import InputError
from quaver.server.app import create_app
from quaver.server.connections import Gate, connection_limits, raise_file_limit
from quaver.server.engines import WORKER
from quaver.server.http_protocol import HeadLimits, HttpProtocol
from quaver.server.service import Service
from quaver.server.settings import Settings
from quaver.server.trust import Proxies
from quaver.server.ws_protocol import Turns, WebSocketProtocol

LAST_SECONDS = 2  # for connections to close after the last stream


def serve(settings: Settings, command: Sequence[str] = WORKER) -> None:
    """Serve until told to end by a signal. QuaverError for what cannot be listened on or loaded.

    `command` starts an engine process.
    """
    logging.basicConfig(format="quaver: %(message)s", level=logging.INFO)
    gc.freeze()  # what is imported stays, and to look through it would stop every stream
    with _listen(settings.host, settings.port) as listener:
        asyncio.run(_serve(settings, listener, command))


async def _serve(settings: Settings, listener: socket.socket, command: Sequence[str]) -> None:
    service = Service(settings, command)
    server = _Server(service)
    host, port = listener.getsockname()[:2]
    sys.stderr.write(f"quaver: listening on http://{f'[{host}]' if ':' in host else host}:{port}\n")
    engines = asyncio.create_task(service.run())
    told = asyncio.create_task(_tell_ready(service))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait((engines, serving), return_when=asyncio.FIRST_COMPLETED)
    if engines.done():
        server.should_exit = True
        await serving
        engines.result()
    for task in (engines, told):
        task.cancel()
    await asyncio.wait((engines, told))


async def _tell_ready(service: Service) -> None:
    for engine in service.engines:
        await engine.wait_ready()
        facts = engine.facts
        sys.stderr.write(
            f"quaver: ready: {facts['model']}, {facts['recipe']} on {facts['device']}, "
            f"{facts['slots']} streams at once at RTF {facts['rtf_when_full']:.2f}\n"
        )
        for note in facts["notes"]:
            sys.stderr.write(f"quaver: warning: {note}\n")


class _Server(uvicorn.Server):
    """Ends when running streams have, and with status 0; a second signal ends it at once."""

    def __init__(self, service: Service) -> None:
        super().__init__(_config(service))
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told:
            self.should_exit = self.force_exit = True
        self._told = True
        self._loop.call_soon_threadsafe(self._begin_draining)

    def _begin_draining(self) -> None:
        self._draining = self._draining or self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._service.drain()
        self.should_exit = True


def _config(service: Service) -> uvicorn.Config:
    settings, count = service.settings, service.metrics.count_client_error
    files = raise_file_limit()
    most, of_address, backlog = connection_limits(
        files, settings.max_connections, settings.max_connections_per_address
    )
    gate = Gate(most, of_address, Proxies(settings.trusted_proxies).trusts)
    limits = HeadLimits(
        settings.max_header_bytes,
        settings.max_headers,
        settings.header_timeout,
        settings.body_timeout,
    )
    # uvicorn calls these as it would call the classes
    http: Any = partial(HttpProtocol, gate=gate, limits=limits, count=count)
    ws: Any = partial(WebSocketProtocol, turns=Turns(), count=count)
    return uvicorn.Config(
        create_app(service),
        http=http,
        ws=ws,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `trust.Proxies` reads them
        backlog=backlog,
        timeout_keep_alive=math.ceil(settings.keep_alive_timeout),
        timeout_graceful_shutdown=LAST_SECONDS,
        ws_max_size=settings.max_body,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=2048)
        # Connections inherit it. Without it the first sound on a connection that is kept waits for
        # the client's delayed acknowledgement of the headers, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); "
            "give another --host or --port"
        ) from None
