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

from quaver.core.errors import CheckpointError, ConfigError
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
    losses: dict[str, torch.Tensor] = {}
    started = time.monotonic()
    while step < schedule.steps and not _over(started, minutes):
        losses = task.step(step, schedule.rate(step))
        step += 1
        if step % report_every == 0 or step == schedule.steps:
            each = (time.monotonic() - started) / (step - first)
            numbers = _numbers(losses, step)
            report(Progress(step, schedule.steps, numbers, each * (schedule.steps - step), False))
        if step % schedule.validate_every == 0 or step == schedule.steps:
            _numbers(losses, step)
            report(Progress(step, schedule.steps, task.validate(), 0.0, True))
        if step % schedule.save_every == 0:
            _save(task, saved, step, losses)
    _save(task, saved, step, losses)
    task.export(folder / "model")
    return step >= schedule.steps


def _over(started: float, minutes: float | None) -> bool:
    return minutes is not None and time.monotonic() - started > 60 * minutes


def _numbers(losses: dict[str, torch.Tensor], step: int) -> Losses:
    """Losses as numbers; waits for the device. Raises ConfigError if one is infinite or NaN."""
    numbers = {name: float(value) for name, value in losses.items()}
    if not all(map(math.isfinite, numbers.values())):
        told = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        raise _diverged(f"the loss is not finite at step {step} ({told})")
    return numbers


def _diverged(what: str) -> ConfigError:
    return ConfigError(
        f"{what}; the last save is of an earlier step: give a lower learning_rate, or more "
        "warmup_steps, and run again"
    )


def _save(task: Task, path: Path, step: int, losses: dict[str, torch.Tensor]) -> None:
    """Write `state.pt`, never one of a run that has diverged. CheckpointError if it cannot."""
    _numbers(losses, step)
    state = task.state()
    if not _is_finite(state):
        raise _diverged(f"the weights are not finite at step {step}")
    try:
        with new_file(path) as part:
            torch.save({"step": step, "task": state}, part)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's writer, on a full disk
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
        raise CheckpointError(f"cannot write {path} ({reason}); free some space") from error


def _is_finite(state: Any) -> bool:
    """Whether all numbers of all tensors in nested dictionaries and lists are finite."""
    if isinstance(state, torch.Tensor):
        return not state.is_floating_point() or bool(state.isfinite().all())
    if isinstance(state, dict):
        return all(map(_is_finite, state.values()))
    return not isinstance(state, list | tuple) or all(map(_is_finite, state))


def _resume(task: Task, path: Path) -> int:
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        task.restore(saved["task"])
        return int(saved["step"])
    except (
        *(UnpicklingError, RuntimeError, KeyError, ValueError, EOFError, OSError),
        *(TypeError, AttributeError, IndexError),  # a save of something else
    ) as error:
        raise CheckpointError(
            f"cannot resume from {path} ({type(error).__name__}); delete it to start anew"
        ) from None
