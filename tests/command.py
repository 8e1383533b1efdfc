"""Running `quaver` as a user does: another process, its two streams, its status."""

import os
import subprocess
import sys
from pathlib import Path

import quaver as package

# A short utterance of the tiny model; its length is the seed's luck.
SHORT = ("Hi.", "--seed", "46", "--temperature", "1", "--top-p", "1")
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "100",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(Path(package.__file__).parents[1]),
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "quaver", *map(str, arguments)]


def quaver(
    *arguments: object, folder: Path | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end in `folder`."""
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        input=stdin,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=600,
        check=False,
    )


def files(folder: Path) -> list[str]:
    """Names of all files in `folder`, hidden ones too."""
    return sorted(file.name for file in folder.iterdir())
