"""What a measurement depends on beside the code: machine, versions, date.

Every result is written by `write_result`, so every number has its machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quaver.core.environment import settings
from quaver.core.files import new_file
from quaver.core.system import cpu_facts

PACKAGES = ("quaver", "torch", "triton", "numpy", "transformers", "snac", "pocketsphinx")


def fingerprint() -> dict[str, Any]:
    """Processor, accelerators, versions and date of this process, and the environment variables
    that change speed or results."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpus": _gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "environment": {each.name: each.value for each in settings()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write a measurement beside its machine, the whole file or nothing."""
    text = json.dumps({"machine": fingerprint(), **content}, indent=1, allow_nan=False)
    with new_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _processor() -> str:
    return cpu_facts().get("model name") or platform.processor()


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # not installed, or run from a source tree
        return None


def _commit() -> str | None:
    """The source tree's commit, where there is one, and whether the tree is what it says."""
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return None
    return commit + (" and changes" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    """What git says of the source tree; nothing where it is none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
