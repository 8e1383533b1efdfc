"""The training loop: one for all that is trained here.

A `Task` knows its model; the loop knows time: schedule, validation, saving, resuming, progress.
A run that is killed goes on from its last save with the same data order, because order is a
function of the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch

from quaver.core.errors import CheckpointError
from quaver.core.files import new_file
from quaver.train.config import Schedule

Losses = dict[str, float]


class Task(Protocol):
    """What is trained."""

    def step(self, step: int, rate: float) -> dict[str, torch.Tensor]:
        """One update at this learning rate; returns losses on the device, unsynchronised."""

    def validate(self) -> Losses: ...

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs: weights and optimiser state."""

    def restore(self, state: dict[str, Any]) -> None: ...

    def export(self, folder: Path) -> None:
        """Write the model as a checkpoint folder."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports while it goes on."""

    step: int
    steps: int
    losses: Losses
    seconds_left: float
    validation: bool


def run(
    task: Task,
    schedule: Schedule,
    folder: Path,
    *,
    minutes: float | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    report_every: int = 100,
) -> bool:
    """Train to the end of the schedule, or stop in order after `minutes`.

    Saves `state.pt` in `folder` as it goes and exports to `folder/model` whenever it stops.
    Returns whether the schedule is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "state.pt"
    first = step = _resume(task, saved)
    started = time.monotonic()
    while step < schedule.steps and not _over(started, minutes):
        losses = task.step(step, schedule.rate(step))
        step += 1
        if step % report_every == 0 or step == schedule.steps:
            each = (time.monotonic() - started) / (step - first)
            numbers = {name: float(value) for name, value in losses.items()}
            _check(numbers, step)
            report(Progress(step, schedule.steps, numbers, each * (schedule.steps - step), False))
        if step % schedule.validate_every == 0 or step == schedule.steps:
            report(Progress(step, schedule.steps, task.validate(), 0.0, True))
        if step % schedule.save_every == 0:
            _save(task, saved, step)
    _save(task, saved, step)
    task.export(folder / "model")
    return step >= schedule.steps


def _over(started: float, minutes: float | None) -> bool:
    return minutes is not None and time.monotonic() - started > 60 * minutes


def _check(losses: Losses, step: int) -> None:
    if any(math.isnan(value) for value in losses.values()):
        raise ArithmeticError(f"loss is not a number at step {step}: {losses}")


def _save(task: Task, path: Path, step: int) -> None:
    with new_file(path) as part:
        torch.save({"step": step, "task": task.state()}, part)


def _resume(task: Task, path: Path) -> int:
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        task.restore(saved["task"])
        return int(saved["step"])
    except (UnpicklingError, RuntimeError, KeyError, ValueError, EOFError, OSError) as error:
        raise CheckpointError(
            f"cannot resume from {path} ({type(error).__name__}); delete it to start anew"
        ) from None
