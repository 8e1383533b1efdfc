"""What has been measured so far, a line an utterance, so that a stopped comparison goes on.

The first line says what is compared; a ledger of another comparison is refused. A line that was cut
off is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quaver.core.errors import InputError
from quaver.core.files import new_file

NAME = "work.jsonl"


class Ledger:
    """Entries by name, kept in a file of the comparison's folder."""

    def __init__(self, folder: Path, setup: Mapping[str, Any]) -> None:
        self._path = folder / NAME
        self._entries: dict[str, dict[str, Any]] = {}
        wanted = json.dumps(setup, sort_keys=True)
        if self._path.exists():
            self._read(wanted)
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} holds something else; give a new folder as --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(self._path, wanted + "\n")
        except OSError as error:
            raise InputError(f"cannot write {folder} ({error}); give another --out") from error

    def get(self, name: str) -> dict[str, Any] | None:
        return self._entries.get(name)

    def entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """All of them, by name, as they came."""
        return iter(self._entries.items())

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry; it is on disk when this returns."""
        self._entries[name] = dict(entry)
        line = json.dumps({"name": name, **entry}, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as opened:
            opened.write(line + "\n")
            opened.flush()
            os.fsync(opened.fileno())

    @classmethod
    def opened(cls, folder: Path) -> tuple[dict[str, Any], Ledger]:
        """The ledger of a folder, and what it says that it compares. InputError if it has none."""
        try:
            with (folder / NAME).open(encoding="utf-8") as opened:
                setup = json.loads(opened.readline())
        except (OSError, UnicodeDecodeError, ValueError):
            raise InputError(f"{folder} is no comparison: it has no {NAME}") from None
        return setup, cls(folder, setup)

    def _read(self, wanted: str) -> None:
        try:
            first, *lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise InputError(f"cannot read {self._path} ({error}); delete it") from None
        if first.strip() != wanted:
            raise InputError(
                f"{self._path.parent} holds another comparison (other models, recipes, texts or "
                "judges); give a new folder as --out, or delete that one"
            )
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # cut off in the middle of a line
            _replace(self._path, "".join([first, *whole]))
        for line in whole:
            entry = json.loads(line)
            self._entries[entry.pop("name")] = entry


def _replace(path: Path, text: str) -> None:
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")
