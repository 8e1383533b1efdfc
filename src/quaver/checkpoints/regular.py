"""Opening what a stranger's folder holds: regular files and links to them, nothing else.

A named pipe under a file's name would be waited for without end, a device read without end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from quaver.core.errors import CheckpointError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read. OSError if it cannot be opened, CheckpointError if it is none.

    Without O_NONBLOCK, opening a pipe would wait for a writer before its kind is known.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags)
    except IsADirectoryError:
        raise _not_regular(path, stat.S_IFDIR) from None
    except PermissionError:
        check_regular(path)  # Windows says this of a folder
        raise
    try:
        mode = os.fstat(number).st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(path, mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def check_regular(path: Path) -> None:
    """CheckpointError if `path` is there and not a regular file, nor a link to one."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # whoever opens it says why it cannot
    if not stat.S_ISREG(mode):
        raise _not_regular(path, mode)


def _not_regular(path: Path, mode: int) -> CheckpointError:
    kind = next((name for test, name in _KINDS if test(mode)), "something else")
    return CheckpointError(f"{path} is {kind}, and must be a file; download the folder again")
