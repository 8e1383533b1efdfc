"""JSON files of a model folder. They come from strangers, so size and shape are checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quaver.checkpoints.atomic import new_file, one_line
from quaver.core.errors import CheckpointError

MAX_JSON_BYTES = 50 * 2**20  # the largest known, a tokenizer.json, has 33 MB


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in `path`; `what` names its part in messages ("the model's config").

    Raises CheckpointError if it is missing, above 50 MB, not JSON, or not an object.
    """
    try:
        if not path.is_file():
            raise CheckpointError(
                f"{what} is missing: {path} is not there; download the folder again"
            )
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read {what}, {path}: {one_line(error)}") from error
    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{what}, {path}, is above {MAX_JSON_BYTES:,} bytes; is it the file?")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{what}, {path}, is not valid JSON ({one_line(error)}); mend it or download it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{what}, {path}, holds a JSON {type(value).__name__}; it must be an object {{...}}"
        )
    return value


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data`, indented, replacing `path` at once. Raises CheckpointError if it cannot."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")
