"""What to do when the hub, its client or its cache fails, in one line each."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quaver.checkpoints.atomic import one_line

# Where the hub's client looks for its cache's place, in this order.
CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
_OTHER_PLACE = "set it to a folder that you may write to"


def advice(error: BaseException, otherwise: str) -> str:
    """What went wrong and what to do; `otherwise` is what can be done without the hub."""
    if isinstance(error, ValueError):
        return _setting_problem(error)
    if refusal := _refusal(error):
        return f"{refusal}, {otherwise}"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision; after @ give a branch, a tag or a full commit of that repository"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left; free some, or set HF_HOME to a larger disk"
    if problem := cache_problem(use=True):
        return problem
    return f"{_absence(error)}, {otherwise}"


def _absence(error: BaseException) -> str:
    """Why the hub did not answer, and what to do about that."""
    if not isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return f"the download failed ({one_line(error)}); check the network"
    if os.environ.get("HF_HUB_OFFLINE"):
        return "the cache lacks it, and HF_HUB_OFFLINE forbids to ask the hub; unset HF_HUB_OFFLINE"
    return "the hub is out of reach and the cache lacks it; check the network"


def _refusal(error: BaseException) -> str | None:
    """Why the hub does not give something to this account; None if it did not refuse."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) or status == 403:
        return (
            "access is restricted; accept the licence on its page at huggingface.co, "
            "then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RevisionNotFoundError):
        return None
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        if huggingface_hub.get_token() is None:
            token = "set HF_TOKEN if it is private"
        else:
            token = "see whether HF_TOKEN is out of date, or of an account without access"
        return f"no such public repository; check the spelling, {token}"
    if status == 429:
        return "the hub takes no more requests from here for now; wait a few minutes"
    return None


def cache_problem(use: bool = False) -> str | None:
    """Why the hub's cache cannot be used, in one line that names the variable; None if it can.

    `use` makes it, if it is not there, and tries to write.
    """
    try:
        place = _cache()
    except ValueError as error:
        return _setting_problem(error)
    try:
        nearest = next(each for each in (place, *place.parents) if each.exists())
        if not nearest.is_dir():
            return f"{_cache_name()}, and {nearest} is a file; {_OTHER_PLACE}"
        if not use:
            return None
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"{_cache_name()}, which cannot be used ({one_line(error)}); {_OTHER_PLACE}"


def _cache_name() -> str:
    """The variable that decides where the hub's cache lies, with its value."""
    for name in CACHE_VARIABLES:
        if value := os.environ.get(name):
            return f"{name} is {value[:200]!r}"
    return f"HF_HOME is not set, so the cache is {_cache()}"


def _cache() -> Path:
    """The cache's folder. Raises ValueError for a variable that the client cannot read."""
    from huggingface_hub import constants  # which reads the environment when it is imported

    return Path(constants.HF_HUB_CACHE)


def _setting_problem(error: ValueError) -> str:
    """What the hub's client could not make of its variables."""
    names = sorted(name for name in os.environ if name.startswith(("HF_", "HUGGING")))
    return f"a setting of the hub cannot be used ({one_line(error)}); look at {', '.join(names)}"
