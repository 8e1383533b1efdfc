"""Files and folders that appear whole or not at all.

Both helpers hand out a hidden sibling of the target and rename it when the body has succeeded: a
rename within one folder is atomic, so a reader, or a process killed half-way, never leaves or sees
half a checkpoint. An exception removes the sibling.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from quaver.core.errors import CheckpointError, printable


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write; it replaces `path` when the body ends well. CheckpointError if not."""
    part = _sibling(path)
    try:
        with _reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            _sync(part)
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the body ends well.

    `path` may be absent or an empty folder; anything else, and any failure to write, is a
    CheckpointError, and then `path` is as it was.
    """
    path = path.absolute()
    part = _sibling(path)
    try:
        with _reported(path):
            refuse_occupied(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
            yield part
            if path.is_dir():
                path.rmdir()  # Windows renames onto no folder, not even an empty one
            part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def one_line(error: BaseException) -> str:
    """An exception's own words, fit to stand inside a one-line message."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text, 300)


def refuse_occupied(path: Path) -> None:
    """CheckpointError if `path` is anything but absent or an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise CheckpointError(
            f"{path} exists already; give a new or an empty folder, or remove it first"
        )


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {one_line(error)}; nothing was kept: "
            "give a writable place with enough free space"
        ) from error


def _sibling(path: Path) -> Path:
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"


def _sync(path: Path) -> None:
    """Force to disk, lest a power cut keep the rename and lose the bytes."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
