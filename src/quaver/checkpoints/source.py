"""From what a user types to a folder on disk: a bundled model, a local folder or a hub id.

Whatever can go wrong on the way (no network, a licence not accepted, a full disk) has one outcome,
a CheckpointError that says what to do. Downloads are by pattern: the Orpheus repository keeps
about 100 GB of optimizer state beside 15 GB of weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import CacheNotFound, HfHubHTTPError, HFValidationError

from quaver.checkpoints.atomic import one_line
from quaver.checkpoints.hub import advice
from quaver.checkpoints.recognise import file_advice, folder_advice
from quaver.core.errors import CheckpointError, InputError

CONFIG = "config.json"
MODEL_FILES = (
    CONFIG,
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "quaver.json",
    "codec/*",
)
CODEC_FILES = (CONFIG, "*.safetensors", "pytorch_model.bin")
# a hub pattern's * crosses folders, so training state must be turned away by name
TRAINING_FILES = ("*optimizer*", "*.distcp", "checkpoint*/*", "global_step*/*", "original/*")

_BUNDLED = Path(__file__).parents[1] / "bundled"
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(?!.*\.\.)(\w[\w./-]*))?", re.ASCII)

# The base of all transport errors, of whichever HTTP library the hub client's version uses.
_HTTP_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder of model files, and where it came from; `revision` is a commit of the hub."""

    path: Path
    name: str
    revision: str | None = None


def resolve(model: str, patterns: Sequence[str] = MODEL_FILES) -> ModelFolder:
    """Find `model`: a bundled name, a local folder, or `org/name[@revision]` of the hub.

    They are tried in this order. From the hub come only files that match `patterns`, and what is
    cached serves when the network is away. config.json must be there if `patterns` ask for it.
    Raises InputError if `model` is none of the three, CheckpointError if it cannot be had.
    """
    found = _local(model) or _from_hub(model, patterns)
    if CONFIG in patterns and not (found.path / CONFIG).exists():
        raise CheckpointError(
            folder_advice(found.path)
            or f"{found.path} has no {CONFIG}; a model folder needs {CONFIG} and *.safetensors"
        )
    return found


def is_hub_id(model: str) -> bool:
    """Whether `model` has the form of a hub id, `org/name` or `org/name@revision`."""
    return _HUB_ID.fullmatch(model) is not None


def bundled() -> dict[str, Path]:
    """The models that come with Quaver, by name."""
    return {file.parent.name: file.parent for file in sorted(_BUNDLED.glob(f"*/{CONFIG}"))}


def cached() -> list[ModelFolder]:
    """Models of the hub that are on this machine, by name, the newest revision first.

    None where the cache cannot be read; `cache_problem` says why.
    """
    try:
        repos = huggingface_hub.scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):  # ValueError: a file, or a wrong HF_ variable
        return []
    return [
        ModelFolder(revision.snapshot_path, repo.repo_id, revision.commit_hash)
        for repo in sorted(repos, key=lambda repo: repo.repo_id)
        if repo.repo_type == "model"
        for revision in sorted(repo.revisions, key=lambda r: r.last_modified, reverse=True)
        if (revision.snapshot_path / CONFIG).is_file()
    ]


def _local(model: str) -> ModelFolder | None:
    if model in (own := bundled()):
        return ModelFolder(own[model], model)
    path = Path(model)
    try:
        if model.strip() and path.is_dir():
            _check_name(path)
            return ModelFolder(path, path.resolve().name)
        if model.strip() and path.exists():
            raise InputError(f"model {model!r} is a file; {file_advice(path)}")
    except OSError as error:
        raise InputError(f"model {model[:80]!r} cannot be opened: {one_line(error)}") from error
    return None


def _check_name(path: Path) -> None:
    """InputError for a name that safetensors and tokenizers cannot open."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"model {str(path)!r} has a name that is not UTF-8, which safetensors cannot open; "
            "rename the folder, or give a link to it"
        ) from error


def _from_hub(model: str, patterns: Sequence[str]) -> ModelFolder:
    form = _HUB_ID.fullmatch(model)
    if form is None:
        raise InputError(
            f"model {model[:80]!r} is not known; give a bundled name ({_bundled_names()}), "
            "an existing folder, or a Hugging Face id as org/name or org/name@revision"
        )
    repo, revision = form.groups()
    try:
        path = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(TRAINING_FILES),
        )
    except HFValidationError as error:
        raise InputError(f"model {model[:80]!r} is no hub id: {one_line(error)}") from error
    except (OSError, RuntimeError, ValueError, _HTTP_ERROR) as error:
        # RuntimeError: its Rust transport; ValueError: a variable or token that is none
        otherwise = f"or use a bundled model ({_bundled_names()}) or a local folder"
        raise CheckpointError(f"cannot get {model}: {advice(error, otherwise)}") from error
    return ModelFolder(Path(path), repo, Path(path).name)


def _bundled_names() -> str:
    return ", ".join(bundled()) or "none in this installation"
