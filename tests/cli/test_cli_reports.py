"""`quaver models`, `quaver doctor`, help and version."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import quaver as package
from command import ENVIRONMENT, quaver
from quaver.audio.encode import FORMATS
from quaver.checkpoints import source
from quaver.cli import doctor
from quaver.cli.main import run
from tiny import VOICES

VERBS = ("say", "models", "doctor", "train", "train data", "train codec", "train lm")
HELP_ALL = """
import sys
from quaver.cli.main import run
for verb in sys.argv[1:]:
    assert run([*verb.split(), "--help"]) == 0, verb
assert run(["--version"]) == 0
print(sorted({"torch", "numpy", "av"} & set(sys.modules)))
"""


def test_help_of_every_verb_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP_ALL, "", *VERBS],
        capture_output=True,
        env=ENVIRONMENT,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"Usage:") == len(VERBS) + 1
    assert done.stdout.endswith(f"quaver {package.__version__}\n[]\n".encode())


def test_no_verb_or_a_wrong_one() -> None:
    bare, wrong = quaver(), quaver("sya")
    assert (bare.returncode, bare.stderr) == (0, b"")
    assert b"Usage: quaver" in bare.stdout
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert wrong.stderr.startswith(b"quaver: No such command 'sya'")
    assert wrong.stderr.count(b"\n") == 1


def test_models(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = source.ModelFolder(tiny_checkpoint, "canopylabs/orpheus-3b-0.1-ft", "abc")
    other = source.ModelFolder(tiny_checkpoint / "codec", "hubertsiuzdak/snac_24khz", "def")
    monkeypatch.setattr(source, "bundled", lambda: {"tiny": tiny_checkpoint})
    monkeypatch.setattr(source, "cached", lambda: [cached, other])
    assert run(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows) == 1 + 14
    assert by_name["tiny"]["voices"] == list(VOICES)
    assert by_name["tiny"]["bytes"] > 1_000_000
    assert by_name["tiny"]["where"] == "bundled"
    assert by_name["canopylabs/orpheus-3b-0.1-ft"]["revision"] == "abc"
    assert by_name["canopylabs/3b-fr-ft-research_release"]["voices"] == [
        "pierre",
        "amelie",
        "marie",
    ]
    assert by_name["canopylabs/3b-fr-pretrain-research_release"]["voices"] == []
    assert run(["models"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in by_name)


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"] == version("torch")
    assert report["encoders"] == dict.fromkeys(FORMATS, True)
    assert report["recipes"]["fp32"]["cpu"] == "native (13.2 GB for 3B)"
    assert status == bool(report["problems"])
    assert run(["doctor"]) == status
    assert capsys.readouterr().out.splitlines()[-1].rstrip() == report["verdict"]


def test_doctor_finds_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(doctor.EXTRAS, "train", ("no_such_module",))
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "pip install 'quaver[train]'" in out
    assert "av does not load" in out.splitlines()[-1]
