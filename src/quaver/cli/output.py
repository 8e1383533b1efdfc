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

from quaver.cli.streams import hang_up
from quaver.core.errors import InputError
from quaver.core.files import check_writable

if TYPE_CHECKING:
    from rich.console import Console

    from quaver.audio.encode import StreamWriter
    from quaver.quantizing.report import Progress as Stage
    from quaver.quantizing.report import Report

STDOUT = "-"
STATUS = {"pass": 0, "fail": 1, "not resolved": 3}  # of a verdict, as exit status


@dataclass(frozen=True, slots=True)
class AudioTarget:
    """A path, or standard output for `-`, and the format and the rate in Hz to write there."""

    name: str
    format: str
    rate: int | None = None  # None is the format's default

    @classmethod
    def choose(cls, out: str | None, format: str | None, rate: int | None = None) -> AudioTarget:
        """The target, known to be writable. Raises InputError, so that no model is loaded first."""
        from quaver.audio.encode import check_format, check_rate, ending_of, format_of

        if format is not None:
            check_format(format)
        if out is None:
            out = f"quaver.{ending_of(format or 'wav')}"
        out = out if out == STDOUT else _file_name(out, format)
        chosen = format or ("wav" if out == STDOUT else format_of(out))
        check_rate(chosen, rate)
        target = cls(out, chosen, rate)
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
            with StreamWriter(place, sample_rate, self.format, self.rate) as writer:
                yield writer
        except BrokenPipeError:
            if self.is_stdout:
                hang_up()
        except OSError as error:
            where = "standard output" if self.is_stdout else self.name
            reason = error.strerror or error
            raise InputError(f"cannot write {where} ({reason}); choose another --out") from error

    def _try(self) -> None:
        if self.is_stdout:
            if sys.stdout.isatty():
                raise InputError(
                    "standard output is a terminal, which cannot play sound; give --out a file, "
                    "or a pipe as in `quaver say hello --out - | ffplay -`"
                )
            _ = sys.stdout.buffer  # InputError if it is closed
            return
        from quaver.audio.encode import StreamWriter

        path = Path(self.name)
        if path.is_file() or not path.exists():
            # opening a named pipe and closing it would tell its reader that all is over
            StreamWriter(path, 24000, self.format).abort()


def _file_name(out: str, format: str | None) -> str:
    """`--out` as a path that a file can be put at. Raises InputError for folders and bad names."""
    if not out.strip():
        raise InputError(f"--out is {out!r}; name a file, such as quaver.wav")
    path = Path(out)
    try:
        if out.startswith("~") and not path.parent.exists():
            path = path.expanduser()  # the shell leaves --out=~/a.wav as it is
        if path.is_dir():
            from quaver.audio.encode import ending_of

            example = path / f"quaver.{ending_of(format or 'wav')}"
            raise InputError(f"--out {out} is a folder; name a file in it, such as {example}")
        path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--out {_shown(out)} cannot be used ({reason}); give another") from error
    if out.endswith(("/", os.sep)):
        raise InputError(f"--out {out} is a folder that does not exist; name a file")
    return str(path)


def check_output(name: str, path: Path | None, file: str | None = None) -> None:
    """InputError if the file of option `name` cannot be written: told before the long work.

    With `file`, `path` is a folder, to be made or there, and that is a file's name in it.
    """
    try:
        if path is not None:
            check_writable(path if file is None else path / file)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{name} {_shown(str(path))} cannot be written ({reason}); give another"
        ) from error


def _shown(name: str) -> str:
    """A name in a message, cut where it is too long to be read."""
    return name if len(name) <= 200 else f"{name[:200]}..."


def print_json(values: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """One JSON document, on standard output unless told otherwise.

    Characters that the stream's encoding does not know are escaped, so that nothing is lost.
    """
    stream = stream or sys.stdout
    text = json.dumps(values, indent=2, ensure_ascii=False)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(values, indent=2)
    print(text, file=stream)


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
    console = Console(stderr=True)
    quiet = not console.is_terminal  # else an empty line would be left in a log
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
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
