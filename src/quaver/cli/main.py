"""The command line: one file a verb, heavy imports inside the verbs.

Exit status: 0 fine; 1 a gate or check failed; 2 the user's mistake, told in one line; 3 a gate was
not resolved; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from quaver import __version__
from quaver.cli import train
from quaver.cli.bench import bench
from quaver.cli.compare import compare
from quaver.cli.doctor import doctor
from quaver.cli.models import models
from quaver.cli.output import warn
from quaver.cli.quantize import quantize
from quaver.cli.say import SayCommand, say
from quaver.cli.serve import serve
from quaver.cli.streams import guard_streams, hang_up
from quaver.core.errors import QuaverError

app = typer.Typer(
    name="quaver",
    help="Open speech models in real time, in eight bits, with proof that they still sound right.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=SayCommand)(say)
app.command()(quantize)
app.command()(compare)
app.command()(bench)
app.command()(serve)
app.command()(models)
app.command()(doctor)
app.add_typer(train.app, name="train")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"quaver {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `quaver` command."""
    guard_streams()
    status = run(sys.argv[1:] or ["--help"])
    with suppress(QuaverError):  # told already: an error interrupted what was being printed
        sys.stdout.flush()
    raise SystemExit(status)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        status: int | None = app(arguments, prog_name="quaver", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        if message := error.format_message():  # empty after a help page
            command = getattr(getattr(error, "ctx", None), "command_path", "quaver")
            warn(f"{_one_line(message).rstrip('.')}; see {command} --help")
        return error.exit_code
    except BrokenPipeError:
        hang_up()
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (QuaverError, OSError, MemoryError, RuntimeError) as error:
        advice = _told(error)
        if advice is None:
            raise
        warn(_one_line(advice))
        return 2
    return status or 0


def _told(error: Exception) -> str | None:
    """What a user can do about an error; None for a bug of ours."""
    if isinstance(error, QuaverError):
        return str(error)
    if isinstance(error, OSError):  # of a file that no verb had words of its own for
        name = "a file" if error.filename is None else str(error.filename)[:200]
        return f"cannot use {name}: {error.strerror or error}; give another, or mend it"
    if _is_out_of_memory(error):
        return f"out of memory; give a recipe with smaller weights, or free some: {error}"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Also on a GPU, whose error is torch's: by name, since torch may not be loaded."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _one_line(message: str) -> str:
    return " ".join(message.split())
