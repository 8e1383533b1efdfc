"""Judges' weights in folders that the user has: checked at once, loaded when they are first needed.

Nothing in a folder is run: weights are safetensors, or else read by `torch.load` as tensors only,
and the code is that of the installed transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from quaver.core.errors import InputError
from quaver.quality.metrics.packages import installed

# In the order in which transformers looks for them.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_EXTRACTOR = ("preprocessor_config.json", "processor_config.json")


def check_folder(folder: Path, purpose: str, architecture: str, *others: tuple[str, ...]) -> str:
    """Who judges: `architecture`, a hash of its weights, and transformers' version.

    One file of each of `others` must be there too. Raises InputError for a folder that is not
    one of `architecture`, UnsupportedError where transformers is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{purpose} needs a folder with {architecture}; {folder} is none")
    given = read_settings(folder / "config.json", purpose).get("architectures")
    if given != [architecture]:
        raise InputError(f"{purpose} needs {architecture}; {folder}/config.json names {given}")
    for names in (_EXTRACTOR, *others):
        if not any((folder / name).is_file() for name in names):
            raise InputError(f"{purpose} needs {' or '.join(names)} in {folder}; it is missing")
    package = installed("transformers", purpose)
    return f"{architecture} {digest(_weights(folder, purpose))}, {package}"


def digest(files: Iterable[Path]) -> str:
    """One hash of all `files`, in their order."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()[:16]


def load_model(folder: Path, architecture: str) -> Any:
    """The model in fp32, on the GPU if there is one. InputError if not all weights are there."""
    import torch
    import transformers
    from safetensors import SafetensorError

    try:
        model, found = getattr(transformers, architecture).from_pretrained(
            folder,
            local_files_only=True,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the weights in {folder} cannot be loaded: {reason}") from error
    # It would fill them with random numbers and go on.
    if missing := sorted(found["missing_keys"]):
        raise InputError(f"the weights in {folder} lack {missing[0]}, and {len(missing)} in all")
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _weights(folder: Path, purpose: str) -> list[Path]:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(read_settings(index, purpose).get("weight_map", {}).values()))
            if absent := [part for part in parts if not (folder / part).is_file()]:
                raise InputError(f"{purpose} needs {absent[0]} in {folder}; it is missing")
            return [folder / part for part in parts]
    raise InputError(f"{purpose} needs {' or '.join(_WEIGHTS)} in {folder}; there is neither")


def read_settings(path: Path, purpose: str) -> dict[str, Any]:
    """The object in a file of JSON. InputError, which names the `purpose`, if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{purpose} needs {path.name} in {path.parent}; it cannot be read")
    return values
