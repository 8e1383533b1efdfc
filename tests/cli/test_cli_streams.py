"""Standard streams that are closed, full, left by their reader or not in UTF-8; arguments too."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from command import ENVIRONMENT, SHORT, command
from quaver.cli.main import run
from quaver.cli.say import DASHED_TEXT
from quaver.core.errors import InputError
from quaver.core.textfile import argument_text, decode_text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="redirections are the shell's")
LONG_NAME = "a" * 300


def shell(
    arguments: str, redirection: str = "", folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `quaver ARGUMENTS REDIRECTION` in bash, whose status is quaver's, also in a pipe."""
    line = f"set -o pipefail; {shlex.join(command())} {arguments} {redirection}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=ENVIRONMENT | environment,
        timeout=120,
        check=False,
    )


PRINTING = [
    "models",
    "--help",
    *(
        pytest.param(verb, marks=pytest.mark.slow)
        for verb in (
            *("models --json", "--version", "say --help", "serve --show-config", "train --help"),
            "doctor --json",
        )
    ),
]
# Where the output goes; status, and what is told on standard error.
OUTPUTS = {
    "a reader that has left": ("| true", 0, ""),
    "a reader that leaves": ("| head -c 1", 0, ""),
    "closed": (">&-", 2, "standard output is closed; open it"),
    "full": (">/dev/full", 2, "cannot write standard output \\(No space left on device\\)"),
    "no errors wanted": ("2>&-", 0, ""),
    "errors on a full disk": ("2>/dev/full", 0, ""),
    "no input": ("<&-", 0, ""),
}


@pytest.mark.parametrize(("redirection", "status", "told"), OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("verb", PRINTING)
def test_output_that_cannot_be_written(verb: str, redirection: str, status: int, told: str) -> None:
    done = shell(verb, redirection)
    assert done.returncode == status
    lines = done.stderr.decode().splitlines()
    assert len(lines) == bool(told)
    assert re.match(f"quaver: {told}" if told else "", "".join(lines))


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&1 | true", ">&- 2>&- <&-"])
def test_a_mistake_has_its_status_also_where_nobody_is_told(redirection: str) -> None:
    assert shell("sya", redirection).returncode == 2


def test_a_failed_check_has_its_status_also_where_nobody_reads() -> None:
    """`| head` must not turn a failure into a success."""
    code = (
        "import sys, typer; sys.argv = ['quaver', 'models'];"
        "from quaver.cli import main;"
        "main.app.registered_commands = [c for c in main.app.registered_commands"
        " if c.callback.__name__ != 'models'];\n"
        "@main.app.command('models')\n"
        "def models() -> int:\n"
        "    print('x' * 10_000_000)\n"
        "    return 1\n"
        "main.main()"
    )
    line = f"set -o pipefail; {shlex.join([sys.executable, '-c', code])} | head -c 1"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, env=ENVIRONMENT, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"x", b"")


QUICK = ("cp1252", "the C locale")
ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "cp437": {"PYTHONIOENCODING": "cp437"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "shift-jis": {"PYTHONIOENCODING": "shift_jis"},
    "the C locale": {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "",
    },
}


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(values, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name, values in ENCODINGS.items()
    ],
)
def test_output_in_other_encodings(environment: dict[str, str]) -> None:
    table, listing = (shell(verb, **environment) for verb in ("models", "models --json"))
    names = shell("--help", **environment)
    for done in (table, listing, names):
        assert (done.returncode, done.stderr) == (0, b"")
    assert b"3b-zh-ft-research_release" in table.stdout
    assert b"Usage: quaver" in names.stdout
    encoding = environment["PYTHONIOENCODING"].partition(":")[0] or "ascii"
    voices = [
        voice
        for row in json.loads(listing.stdout.decode(encoding))["models"]
        for voice in row["voices"]
    ]
    assert "长乐" in voices  # escaped where the encoding does not have it, and not lost


def test_text_that_standard_input_cannot_give(tmp_path: Path) -> None:
    closed = shell("say - --out a.wav", "<&-", tmp_path)
    binary = shell("say - --out a.wav", "< <(printf 'caf\\xe9')", tmp_path)
    wide = shell("say - --out a.wav", "< <(printf '\\xff\\xfeH\\x00')", tmp_path)
    for done, told in (
        (closed, "standard input is closed"),
        (binary, r"standard input is not text in UTF-8 \(at byte 3\)"),
        (wide, "standard input is text in UTF-16, not in UTF-8; convert it"),
    ):
        assert done.returncode == 2
        assert re.fullmatch(f"quaver: {told}.*\n", done.stderr.decode())
    assert list(tmp_path.iterdir()) == []


ARGUMENTS = {
    "a text": (r"say $'caf\xe9'", r"TEXT is not text in UTF-8 \(at byte 3\)"),
    "what a recording says": (
        r"say Hi. --reference-text $'\xff' --reference one",
        r"--reference-text is not text in UTF-8 \(at byte 0\)",
    ),
    "a benchmark's text": (r"bench nano --text $'caf\xe9'", "--text is not text in UTF-8"),
    "a voice's name": (r"say Hi. --out $'\xe9'", "allowed are wav"),
    "a model": (r"say Hi. --model $'m\xe9'", r"model 'm\\udce9' has a name that is not UTF-8"),
    "a model that is none": (r"say Hi. --model $'n\xe9'", r"model 'n\\udce9' is not known"),
}


@pytest.mark.parametrize(("line", "told"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_are_not_utf_8(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "one").write_bytes(b"x")
    os.mkdir(os.fsencode(tmp_path) + b"/m\xe9")  # noqa: PTH102
    done = shell(line, folder=tmp_path)
    assert done.returncode == 2
    assert re.match(f"quaver: .*{told}", done.stderr.decode())
    assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
def test_files_whose_names_are_not_utf_8(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"text\xe9")).write_text("Hi.")
    say = f"say {shlex.join(SHORT[1:])} --model {tiny_checkpoint} --json"
    done = shell(rf"{say} --file $'text\xe9' --out $'a\xe9.wav'", folder=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["out"] == os.fsdecode(b"a\xe9.wav")
    cloned = shell(
        rf"{say} Hi. --reference $'a\xe9.wav' --reference-text Hi. --out $'b\xe9.mp3'",
        folder=tmp_path,
    )
    assert cloned.returncode == 0
    assert {b"text\xe9", b"a\xe9.wav", b"b\xe9.mp3"} == {
        os.fsencode(each.name) for each in tmp_path.iterdir()
    }


@pytest.mark.slow
def test_speech_into_a_pipe_or_a_full_disk(tiny_checkpoint: Path, tmp_path: Path) -> None:
    say = f"say {shlex.join(SHORT)} --model {tiny_checkpoint} --out -"
    heard, full = shell(say, "| head -c 10"), shell(say, ">/dev/full")
    assert (heard.returncode, len(heard.stdout), heard.stderr) == (0, 10, b"")
    assert full.returncode == 2
    assert re.fullmatch(rb"quaver: cannot write standard output .*\n", full.stderr)
    silent = shell(
        f"say {shlex.join(SHORT)} --model {tiny_checkpoint} --out a.wav",
        ">&- 2>&- <&-",
        tmp_path,
    )
    assert silent.returncode == 0
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"


# Names of files: each is told before a model is loaded, in one line.
NAMES = {
    "a folder": (["say", "Hi.", "--out", "d"], "--out d is a folder; name a file in it, such as "
    "d/quaver.wav"),
    "a folder with a format": (["say", "Hi.", "--out", "d", "--format", "mp3"], "d/quaver.mp3"),
    "a folder with a slash": (["say", "Hi.", "--out", "d/"], "is a folder; name a file in it"),
    "a folder that is not": (["say", "Hi.", "--out", "new/"], "is a folder that does not exist"),
    "this folder": (["say", "Hi.", "--out", "."], "is a folder; name a file in it, such as quaver"),
    "nothing": (["say", "Hi.", "--out", ""], "--out is ''; name a file, such as quaver.wav"),
    "blanks": (["say", "Hi.", "--out", "  "], "--out is ' '; name a file"),
    "nobody's home": (["say", "Hi.", "--out", "~nobody-here/a.wav"], "cannot be used"),
    "a long name": (["say", "Hi.", "--out", f"{LONG_NAME}.wav"], "File name too long"),
    "a long folder": (["say", "Hi.", "--out", f"{LONG_NAME}/a.wav"], "File name too long"),
    "below a file": (["say", "Hi.", "--out", "file/a.wav"], "does not exist"),
    "a missing folder": (["say", "Hi.", "--out", "none/a.wav"], "folder none does not exist"),
    "a long text file": (["say", "--file", LONG_NAME], "does not exist"),
    "a long model": (["say", "Hi.", "--model", LONG_NAME], "File name too long"),
    "a long recording": (["say", "Hi.", "--reference", LONG_NAME, "--reference-text", "x"], "not"),
    "a text of nothing": (["say", "... -- !"], "has no letter or digit"),
    "a text that is too long": (["say", "word " * 50_000], "at most 200,000"),
    "an option": (["say", "-x"], "No such option: -x; if that is the text, put -- before it"),
    "a long checkpoint": (["quantize", "nano", LONG_NAME, "--recipe", "int8"], "name too long"),
    "a checkpoint that is a file": (["quantize", "nano", "file", "--recipe", "int8"], "exists"),
    "a checkpoint below a file": (["quantize", "nano", "file/x", "--recipe", "int8"], "OUT file/x"),
    "a long report": (["compare", "nano", "--recipe", "int8", "--out", LONG_NAME], "too long"),
    "a report below a file": (["compare", "nano", "--recipe", "int8", "--out", "file/x"], "--out"),
    "a long result": (["bench", "nano", "--out", LONG_NAME], "--out a.*too long"),
    "a result below a file": (["bench", "nano", "--out", "file/x"], "--out file/x cannot be"),
    "a plot below a file": (["bench", "nano", "--plot", "file/x.svg"], "--plot file/x.svg cannot"),
    "a service's result": (["bench", "serve", "http://127.0.0.1:9", "--out", "file/x"], "--out"),
    "a long earlier result": (["bench", "compare", LONG_NAME, "b"], "File name too long"),
    "long settings": (["serve", "--config", LONG_NAME], "File name too long"),
    "long keys": (["serve", "--api-key-file", LONG_NAME], "File name too long"),
    "a long configuration": (["train", "codec", LONG_NAME, "--out", "r"], "File name too long"),
    "a configuration that is a folder": (["train", "codec", "d", "--out", "r"], "Is a directory"),
    "a run that is a file": (["train", "codec", "nano.toml", "--out", "file"], "--out file cannot"),
    "minutes that are none": (["train", "codec", "nano.toml", "--out", "r", "--minutes", "nan"],
    "--minutes"),
    "hours that are none": (["train", "data", "nano.toml", "--hours", "inf"], "--hours is inf"),
    "no processes": (["train", "data", "nano.toml", "--jobs", "0"], "--jobs"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), NAMES.values(), ids=NAMES)
def test_names_that_cannot_be_used(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "file").write_text("x")
    nano = Path(__file__).parents[2] / "configs" / "nano.toml"
    (tmp_path / "nano.toml").write_text(nano.read_text())
    monkeypatch.setattr("quaver.loading.load_orpheus", None)  # nothing is loaded
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("quaver: ")
    assert err.count("\n") == 1
    assert len(err) < 1200
    assert re.search(told, err)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["d", "file", "nano.toml"]


def test_a_home_is_found_where_the_shell_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quaver.cli.output import AudioTarget

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert AudioTarget.choose("~/a.wav", None).name == str(tmp_path / "a.wav")
    (tmp_path / "~").mkdir()  # who has a folder of that name means it
    assert AudioTarget.choose("~/a.wav", None).name == "~/a.wav"


DASHES = ("-5 degrees", "-5", "- one", "-- one", "--5", "-£5", "-.5", "-(a)", "-é")


@pytest.mark.parametrize("text", DASHES)
@pytest.mark.parametrize("before", [[], ["--seed", "5"], ["--json"]])
@pytest.mark.parametrize("after", [[], ["--seed", "5", "--json"]])
def test_a_text_that_begins_with_a_dash(
    text: str, before: list[str], after: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    monkeypatch.setattr("quaver.cli.say._speak", lambda words, *rest: said.append(words) or {})
    monkeypatch.setattr("quaver.cli.say.AudioTarget.choose", lambda *_: FakeTarget())
    assert run(["say", *before, text, *after]) == 0
    assert run(["say", *before, *after, "--", text]) == 0
    assert said == [text, text]
    assert DASHED_TEXT.match(text)


class FakeTarget:
    is_stdout = True


def test_an_option_s_value_is_not_taken_for_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["say", "--seed", "-5", "-5 degrees"]) == 2
    assert "'--seed'" in capsys.readouterr().err
    assert run(["say", "-5 degrees", "-6 degrees"]) == 2


TEXTS = {
    b"caf\xc3\xa9": "café",
    b"\xef\xbb\xbfHi.": "Hi.",
    b"": "",
    b"\xff\xfeH\x00i\x00": r"here is text in UTF-16, .*iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff\x00H\x00i": "UTF-16",
    b"\xff\xfe\x00\x00H\x00\x00\x00": "UTF-32",
    b"H\x00e\x00l\x00l\x00o\x00": "looks like UTF-16",
    b"\x00H\x00e\x00l\x00l\x00o": "looks like UTF-16",
    b"Hello\x00there": r"NUL at byte 5; give a text, not a binary",
    b"\x00" * 100: "NUL at byte 0; give a text, not a binary",
    b"caf\xe9": r"here is not text in UTF-8 \(at byte 3\); convert it",
    b"\xed\xa0\x80": "at byte 0",  # a surrogate
    bytes(range(256)): "not text",
}


@pytest.mark.parametrize(("data", "told"), TEXTS.items(), ids=map(repr, TEXTS))
def test_what_is_text(data: bytes, told: str) -> None:
    try:
        assert decode_text(data, "here") == told
    except InputError as error:
        assert re.search(told, str(error))
        assert "here" in str(error)


def test_an_argument_in_a_locale_without_its_characters_is_read_again() -> None:
    """In the C locale Python hands UTF-8 on as surrogates, although it is text."""
    assert argument_text("café", "TEXT") == "café"
    passed = os.fsencode("café").decode("ascii", "surrogateescape")
    assert argument_text(passed, "TEXT") == "café"
