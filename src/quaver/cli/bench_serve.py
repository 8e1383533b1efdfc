"""`quaver bench serve URL`: what the listeners of a running service wait for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quaver.cli.output import check_output
from quaver.core.errors import InputError

if TYPE_CHECKING:
    from quaver.bench.listening import Load

SECONDS, MOST_SECONDS = 30.0, 3600.0
MOST_RATE, MOST_LISTENERS = 1000.0, 4096


def bench_serve(
    url: str,
    streams: str,
    rate: str | None,
    seconds: float | None,
    max_seconds: float | None,
    seed: int,
    out: Path | None,
    plot: Path | None,
    fresh_connections: bool,
) -> None:
    """One row for each rate, or for each number of listeners at once."""
    from rich.console import Console

    from quaver.bench.listening import listen
    from quaver.bench.machine import fingerprint, write_result
    from quaver.bench.served import plot_served, served_lines, served_row
    from quaver.quality.panel import PLAIN_SENTENCES

    check_output("--out", out)
    check_output("--plot", plot)
    loads = _loads(url, streams, rate, seconds, max_seconds, seed, fresh_connections)
    with Console(stderr=True).status("") as status:
        rows = [served_row(*listen(load, PLAIN_SENTENCES, status.update)) for load in loads]
    machine = fingerprint()
    for row in rows:
        print("\n".join(served_lines(row)))
    for row in rows:
        print(json.dumps(row | {"machine": machine}))
    if out is not None:
        write_result(out, {"served": rows})
    if plot is not None:
        plot_served(rows, plot)


def _loads(
    url: str,
    streams: str,
    rate: str | None,
    seconds: float | None,
    max_seconds: float | None,
    seed: int,
    fresh_connections: bool,
) -> list[Load]:
    from quaver.bench.listening import Load
    from quaver.server.settings import KEY_VARIABLE

    rates = [] if rate is None else _numbers("--rate", rate, MOST_RATE)
    listeners = [] if rates else _numbers("--streams", streams, MOST_LISTENERS)
    length = SECONDS if seconds is None else seconds
    if not 0 < length <= MOST_SECONDS:
        raise InputError(f"--seconds is {length}; allowed is more than 0, up to {MOST_SECONDS:g}")
    return [
        Load(
            url=url,
            key=os.environ.get(KEY_VARIABLE),
            seconds=length,
            rate=each if rates else None,
            listeners=None if rates else int(each),
            max_seconds=max_seconds,
            seed=seed,
            fresh_connections=fresh_connections,
        )
        for each in rates or listeners
    ]


def _numbers(name: str, given: str, most: float) -> list[float]:
    try:
        numbers = [float(each) for each in given.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number <= most for number in numbers):
        raise InputError(f"{name} is {given!r}; give numbers above 0, up to {most:g}, such as 1,8")
    return numbers
