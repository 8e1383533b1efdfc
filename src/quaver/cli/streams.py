"""The standard streams as a command may find them: closed, full, without a reader, not in UTF-8.

A reader that leaves early (`quaver models | head -1`) is no mistake: what is left of the output
goes nowhere, and the verb ends with its own status. A full or closed standard output is told in one
line. A standard error that cannot be written changes nothing: nobody could read about it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from quaver.core.errors import InputError


def guard_streams() -> None:
    """Make this process's standard streams safe to write; for the start of a command."""
    _occupy()
    if sys.stdout is None:
        sys.stdout = cast("TextIO", ClosedOutput())
    else:
        _replace_unknown(sys.stdout)
        sys.stdout = cast("TextIO", GuardedOutput(sys.stdout, is_told=True))
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = cast("TextIO", GuardedOutput(sys.stderr, is_told=False))


def hang_up(stream: TextIO | None = None) -> None:
    """Send what standard output, or `stream`, still holds nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (stream or sys.stdout).fileno())
    os.close(nowhere)


class GuardedOutput:
    """A text stream whose failures end in one line, or in silence, and happen once."""

    def __init__(self, stream: TextIO, is_told: bool) -> None:
        self._stream, self._is_told = stream, is_told

    def write(self, text: str) -> int:
        """Raises InputError if the text cannot be written and that is to be told."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        hang_up(self._stream)  # what is buffered would fail again, at the latest when Python ends
        left = isinstance(error, BrokenPipeError) or (
            os.name == "nt" and error.errno == errno.EINVAL
        )
        if self._is_told and not left:
            raise InputError(
                f"cannot write standard output ({error.strerror}); "
                "send it to a file or pipe that takes it"
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ClosedOutput(io.TextIOBase):
    """What stands for a standard output that was closed (`>&-`): writing is the user's mistake."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise InputError(_CLOSED)

    @property
    def buffer(self) -> io.RawIOBase:
        raise InputError(_CLOSED)


_CLOSED = "standard output is closed; open it, or send it to a file or a pipe"


def _occupy() -> None:
    """Give closed standard streams a file, so that no other file gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _replace_unknown(stream: TextIO) -> None:
    """Let characters that the stream's encoding does not know be written as `?`."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
