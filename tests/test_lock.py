"""`constraints.txt` has what `pyproject.toml` asks for, and nothing of one machine's."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*")  # no address, no local version such as +cpu
FREE = {"quaver", "torch", "setuptools"}  # TORCH of the Makefile, and what torch's builds narrow


def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in pins)
    assert pins == sorted(pins, key=lambda line: line.partition("==")[0])
    return {name: Version(version) for name, _, version in (pin.partition("==") for pin in pins)}


def asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(each) for some in lists for each in some]


@pytest.mark.parametrize("requirement", asked(), ids=str)
def test_what_is_asked_for_is_locked(requirement):
    name, pins = canonicalize_name(requirement.name), pinned()
    if name in FREE:
        assert name not in pins
        return
    assert name in pins, "run `make lock`"
    assert requirement.specifier.contains(pins[name]), "run `make lock`"


def test_nothing_of_a_build_of_torch_is_locked():
    """A user's TORCH brings its own."""
    found = [name for name in pinned() if name.startswith(("torch", "triton", "nvidia", "cuda"))]
    assert not found
