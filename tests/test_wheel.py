"""The wheel: all that the product reads is inside, and it works without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import quaver

PACKAGE = Path(quaver.__file__).parent
ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--quiet")
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    shutil.copytree(PACKAGE, copy / "src/quaver", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    subprocess.run([*PIP, "wheel", *options, str(copy)], check=True)
    (made,) = folder.glob("quaver-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel, and this one's packages behind it."""
    folder = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(folder)
    python = folder / "bin" / "python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    arguments = [*PIP, "--python", str(python), "install", *options, str(wheel)]
    subprocess.run(arguments, env=OUTSIDE, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # a path in a .pth file brings packages, and no editable install of the checkout
    behind = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "behind.pth").write_text("".join(f"{path}\n" for path in sorted(behind)))
    return python.parent


def outside(program: Path, *arguments: str, folder: Path) -> str:
    """What it prints, run in a folder that is no checkout."""
    done = subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=OUTSIDE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_has_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith("quaver/")}
        wanted = {
            f"quaver/{path.relative_to(PACKAGE).as_posix()}": path
            for path in PACKAGE.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert found == wanted.keys()
        assert all(archive.read(name) == path.read_bytes() for name, path in wanted.items())
    kinds = {Path(name).suffix for name in found}
    assert {".safetensors", ".json", ".html", ".js", ".css", ".typed"} <= kinds


def test_it_is_imported_from_the_wheel(installed, tmp_path):
    code = "import quaver; print(quaver.__file__)"
    found = outside(installed / "python", "-c", code, folder=tmp_path)
    assert Path(found.strip()).is_relative_to(installed.parent)


def test_it_speaks_and_reports(installed, tmp_path):
    program = installed / "quaver"
    outside(program, "say", "Hello there.", "--seed", "1", "--out", "a.wav", folder=tmp_path)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"
    models = json.loads(outside(program, "models", "--json", folder=tmp_path))["models"]
    assert "nano" in {model["name"] for model in models}
    assert json.loads(outside(program, "doctor", "--json", folder=tmp_path))
