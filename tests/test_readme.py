"""The README's commands and code run as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
NEEDS_A_HUB = ("canopylabs/", "HF_TOKEN")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [
        line for line in lines if line.strip() and not any(word in line for word in NEEDS_A_HUB)
    ]


def test_there_is_something_to_run():
    assert len(commands()) >= 5
    assert len(blocks("python")) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all, as for a reader: later commands use what earlier ones made."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "chapter.txt").write_text("It was late. Nobody spoke.", encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_a_command_runs(line, folder):
    command, _, player = line.partition("|")
    words = shlex.split(command)
    assert words[0] == "quaver"
    done = subprocess.run(
        [sys.executable, "-m", "quaver", *words[1:]],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    # a comparison of few texts may well fail something, or not resolve it
    statuses = (0, 1, 3) if words[1] == "compare" else (0,)
    assert done.returncode in statuses, done.stderr.decode()
    if player:
        assert done.stdout.startswith(b"RIFF")
    elif "--out" in words:
        assert (folder / words[words.index("--out") + 1]).stat().st_size > 1000


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    code = blocks("python")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "samples at 24000" in done.stdout
    assert (tmp_path / "hello.wav").stat().st_size > 10_000
