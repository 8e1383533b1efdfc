"""`quaver train`: make the data, the codec and the language model of a small voice."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quaver.cli.output import check_output
from quaver.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from quaver.train.loop import Progress

app = typer.Typer(help="Train a small voice from scratch.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(help="TOML file; configs/nano.toml is an example.")]
Minutes = Annotated[
    float | None,
    typer.Option(min=0, help="Stop in order after this long; the same command goes on from there."),
]
Out = Annotated[Path, typer.Option(help="Folder of the run: state.pt, log.jsonl, model/.")]
Device = Annotated[str | None, typer.Option(help="cuda or cpu; default: cuda where there is one.")]


@app.command()
def data(
    config: Config,
    hours: Annotated[float | None, typer.Option(min=0, help="Make this much instead.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Synthesise the speech to learn from; goes on where an earlier run stopped."""
    from dataclasses import replace

    from quaver.train.config import read_config
    from quaver.train.synthesis import make_dataset

    wanted = read_config(config).data
    check_output("data.folder", Path(wanted.folder), "dataset.json")
    _finite("--hours", hours)
    if hours is not None:
        wanted = replace(wanted, hours=hours)
    started = time.monotonic()
    last = -60.0

    def show(made: float) -> None:
        nonlocal last
        now = time.monotonic() - started
        if now - last >= 5:
            last = now
            sys.stderr.write(f"{made:7.2f} of {wanted.hours:g} h  {now:6.0f} s\n")

    made = make_dataset(wanted, jobs, show)
    sys.stderr.write(f"{made:.2f} h in {wanted.folder}, {time.monotonic() - started:.0f} s\n")


@app.command()
def codec(
    config: Config,
    out: Out,
    minutes: Minutes = None,
    device: Device = None,
) -> None:
    """Train the codec: samples to codes and back."""
    from quaver.train.codec import CodecTask
    from quaver.train.config import read_config
    from quaver.train.loop import run

    wanted = read_config(config)
    _check(out, minutes)
    task = CodecTask(wanted.codec, wanted.data, _device(device))
    done = run(task, wanted.codec.schedule, out, minutes=minutes, report=_reporter(out))
    _close(out, done)


@app.command()
def lm(
    config: Config,
    out: Out,
    codec: Annotated[Path, typer.Option(help="The codec's model folder.")],
    minutes: Minutes = None,
    start: Annotated[
        Path | None, typer.Option(help="Begin from this checkpoint's weights.")
    ] = None,
    device: Device = None,
) -> None:
    """Train the language model: text and codes."""
    from quaver.loading.orpheus import read_weights
    from quaver.loading.parts import load_codec
    from quaver.train.config import read_config
    from quaver.train.lm import LanguageModelTask
    from quaver.train.loop import run

    wanted = read_config(config)
    _check(out, minutes)
    place = _device(device)
    task = LanguageModelTask(wanted.lm, wanted.data, load_codec(codec, place), codec, place)
    if start is not None:
        task.start_from(read_weights(start))
    done = run(task, wanted.lm.schedule, out, minutes=minutes, report=_reporter(out))
    _close(out, done)


def _check(out: Path, minutes: float | None) -> None:
    """What can be wrong beside the configuration, told before data and models are read."""
    _finite("--minutes", minutes)
    check_output("--out", out, "state.pt")


def _finite(name: str, value: float | None) -> None:
    """InputError for NaN and infinity, which pass tests of a range."""
    if value is not None and not math.isfinite(value):
        raise InputError(f"{name} is {value}; a finite number is needed")


def _device(name: str | None) -> torch.device:
    from quaver.loading.parts import find_device

    return find_device(name)


def _reporter(out: Path) -> ReportFunction:
    out.mkdir(parents=True, exist_ok=True)
    return ReportFunction(out / "log.jsonl")


class ReportFunction:
    """Writes each report to the log, and a line to stderr."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __call__(self, progress: Progress) -> None:
        row = {"step": progress.step, "validation": progress.validation, **progress.losses}
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in progress.losses.items())
        if progress.validation:
            line = f"{progress.step:>8}  validation   {numbers}"
        else:
            left = time.strftime("%H:%M:%S", time.gmtime(progress.seconds_left))
            line = f"{progress.step:>8} of {progress.steps}  {numbers}  ({left} left)"
        sys.stderr.write(line + "\n")


def _close(out: Path, done: bool) -> None:
    if done:
        sys.stderr.write(f"done; the model is in {out / 'model'}\n")
    else:
        sys.stderr.write("stopped in time; the same command goes on from here\n")
