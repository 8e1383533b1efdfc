"""Replacing a folder of results in one step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quaver.core.files import scratch_folder, settle


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields a path to write; it takes the place of `folder` when the block ends well."""
    old = folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)  # a run was killed between the two renames below
    shutil.rmtree(old, ignore_errors=True)
    with scratch_folder(folder.absolute().parent) as scratch:
        fresh = scratch / folder.name
        yield fresh
        if folder.exists():
            folder.rename(old)
        settle(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
