"""Where a verb's output goes: audio to a file or a pipe, tables and JSON to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from quaver.core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from quaver.audio.encode import StreamWriter
    from quaver.quantizing.report import Progress as Stage
    from quaver.quantizing.report import Report

STDOUT = "-"
STATUS = {"pass": 0, "fail": 1, "not resolved": 3}  # of a verdict, as exit status


@dataclass(frozen=True, slots=True)
class AudioTarget:
    """A path, or standard output for `-`, and the format to write there."""

    name: str
    format: str

    @classmethod
    def choose(cls, out: str | None, format: str | None) -> AudioTarget:
        """The target, known to be writable. Raises InputError, so that no model is loaded first."""
        from quaver.audio.encode import FORMATS, format_of

        if format is not None and format not in FORMATS:
            raise InputError(f"the format is {format!r}; allowed are {', '.join(FORMATS)}")
        if out is None:
            out = f"quaver.{format or 'wav'}"
        chosen = format or ("wav" if out == STDOUT else format_of(out))
        target = cls(out, chosen)
        target._try()
        return target

    @property
    def is_stdout(self) -> bool:
        return self.name == STDOUT

    @contextmanager
    def writer(self, sample_rate: int) -> Iterator[StreamWriter]:
        """A `StreamWriter`. That the reader of a pipe went away ends the block in peace."""
        from quaver.audio.encode import StreamWriter

        place = sys.stdout.buffer if self.is_stdout else Path(self.name)
        try:
            with StreamWriter(place, sample_rate, self.format) as writer:
                yield writer
        except BrokenPipeError:
            if self.is_stdout:
                hang_up()
        except OSError as error:
            where = "standard output" if self.is_stdout else self.name
            reason = error.strerror or error
            raise InputError(f"cannot write {where} ({reason}); choose another --out") from error

    def _try(self) -> None:
        path = Path(self.name)
        if self.is_stdout:
            if sys.stdout.isatty():
                raise InputError(
                    "standard output is a terminal, which cannot play sound; give --out a file, "
                    "or a pipe as in `quaver say hello --out - | ffplay -`"
                )
        elif path.is_file() or path.is_dir() or not path.exists():
            # opening a named pipe and closing it would tell its reader that all is over
            from quaver.audio.encode import StreamWriter

            StreamWriter(path, 24000, self.format).abort()


def hang_up() -> None:
    """Send what standard output still holds nowhere: its reader went away."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(values: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """One JSON document, on standard output unless told otherwise."""
    print(json.dumps(values, indent=2, ensure_ascii=False), file=stream or sys.stdout)


def table_console() -> Console:
    """A console on standard output. Pipes have no width, so tables get room there."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


@contextmanager
def stages() -> Iterator[Report]:
    """Bars on stderr, one a stage, while the block runs; yields what moves them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: Stage) -> None:
            if stage.stage not in tasks:
                tasks[stage.stage] = bar.add_task(stage.stage)
            bar.update(tasks[stage.stage], completed=stage.done, total=stage.total)

        yield show


def judge_folders(given: Sequence[str]) -> dict[str, Path]:
    """Options such as `whisper=FOLDER` as a mapping. InputError for what is none."""
    pairs = [each.partition("=") for each in given]
    if bad := [given[k] for k, (name, _, folder) in enumerate(pairs) if not (name and folder)]:
        raise InputError(f"--judge is {bad[0]!r}; give NAME=FOLDER, such as whisper=models/whisper")
    return {name: Path(folder) for name, _, folder in pairs}


def warn(message: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"quaver: {message}\n")
