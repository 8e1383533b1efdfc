"""The helpers of `core/files.py` for model folders: a failure to write is a CheckpointError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from quaver.core import files
from quaver.core.errors import CheckpointError, printable


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write; it replaces `path` when the body ends well. CheckpointError if not."""
    with _reported(path), files.new_file(path) as part:
        yield part


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the body ends well.

    `path` may be absent or an empty folder; anything else, and any failure to write, is a
    CheckpointError, and then `path` is as it was.
    """
    with _reported(path):
        refuse_occupied(path)
        with files.new_folder(path) as part:
            yield part


def one_line(error: BaseException) -> str:
    """An exception's own words, fit to stand inside a one-line message."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text, 300)


def refuse_occupied(path: Path) -> None:
    """CheckpointError if `path` is anything but absent or an empty folder."""
    try:
        if path.is_dir() and not any(path.iterdir()):
            return
        taken = path.exists() or path.is_symlink()
    except OSError as error:
        raise CheckpointError(
            f"{_shown(path)} cannot be used: {one_line(error)}; give a new or an empty folder"
        ) from error
    if taken:
        raise CheckpointError(
            f"{path} exists already; give a new or an empty folder, or remove it first"
        )


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {_shown(path)}: {one_line(error)}; nothing was kept: "
            "give a writable place with enough free space"
        ) from error


def _shown(path: Path) -> str:
    """A path, cut where its name is too long to be one."""
    name = str(path)
    return name if len(name) <= 200 else f"{name[:200]}..."
