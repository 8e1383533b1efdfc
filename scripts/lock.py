"""Write `constraints.txt`: the newest release of every package that the tests need.

`make lock` runs it with the oldest Python that Quaver supports, since the newest release of a
package may have dropped that one. pip resolves the packages and installs none of them.
PyTorch and what belongs to its builds (Triton, CUDA's libraries) is left out: the Makefile's TORCH
and TRITON choose those.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.txt"
LEFT_OUT = re.compile(r"(quaver|pip|setuptools|wheel|triton.*|torch.*|nvidia-.*|cuda-.*)")
HEAD = """\
# Versions that `make demo`, `make test` and CI install. `make lock` writes this file;
# `make test LATEST=1` tries the newest versions instead.
"""


def resolve(requirements: list[str]) -> dict[str, str]:
    """The version that pip chooses for each package, in an environment that has none."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(str(Path(folder) / "bin" / "python"), "-m", "pip", "install", "--quiet"),
                *("--dry-run", "--ignore-installed", "--report", str(report)),
                *requirements,
            ],
            cwd=ROOT,
            check=True,
        )
        found = json.loads(report.read_text())["install"]
    return {each["metadata"]["name"]: each["metadata"]["version"] for each in found}


def pins(versions: dict[str, str]) -> list[str]:
    """A line a package, by name, as `pip -c` reads them."""
    named = {re.sub(r"[-_.]+", "-", name).lower(): each for name, each in versions.items()}
    return [
        f"{name}=={version.partition('+')[0]}"
        for name, version in sorted(named.items())
        if not LEFT_OUT.fullmatch(name)
    ]


def main() -> None:
    lines = pins(resolve([*sys.argv[1:], f"{ROOT}[dev]"]))
    LOCK.write_text("\n".join([HEAD + lines[0], *lines[1:], ""]))
    print(f"{LOCK.name}: {len(lines)} packages for Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
