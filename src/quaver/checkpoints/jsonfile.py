"""JSON files of a model folder. They come from strangers, so size and form are checked here, and
types and ranges by `quaver.core.section`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quaver.checkpoints.atomic import new_file, one_line
from quaver.checkpoints.regular import open_regular
from quaver.core.errors import CheckpointError, printable

MAX_JSON_BYTES = 50 * 2**20  # the largest known, a tokenizer.json, has 33 MB


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in `path`; `what` names its part in messages ("the model's config").

    Every number in it is finite, and every key is there once. Raises CheckpointError if the file is
    missing, not a regular file, above 50 MB, not JSON, or not an object.
    """
    data = read_bytes(path, what)
    try:
        value = json.loads(
            data, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{what}, {path}, is not valid JSON ({_reason(data, error)}); mend it or download it "
            "again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{what}, {path}, holds a JSON {type(value).__name__}; it must be an object {{...}}"
        )
    return value


def read_bytes(path: Path, what: str) -> bytes:
    """All of a file of at most `MAX_JSON_BYTES`. Raises CheckpointError as `read_json` does."""
    try:
        with open_regular(path) as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise CheckpointError(
            f"{what} is missing: {path} is not there; download the folder again"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {what}, {path}: {one_line(error)}") from error
    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{what}, {path}, is above {MAX_JSON_BYTES:,} bytes; is it the file?")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data`, indented, replacing `path` at once. Raises CheckpointError if it cannot."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers disagree about which of two values of a key counts, so there is one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the key {printable(twice, 80)!r} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{printable(text, 30)} is not a finite number")
    return number


def _reason(data: bytes, error: Exception) -> str:
    """Why a file is no JSON: what it is, where that is known, else the parser's words."""
    start = data[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: run `git lfs pull` in the folder"
    if not data.strip(b" \t\r\n\0"):
        return "it is empty"
    return one_line(error)
