"""`quaver say`: what it writes, what it tells, and what it leaves behind when it fails."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from command import ENVIRONMENT, SHORT, command, files, quaver
from needs import needs_linux, needs_posix
from quaver.audio.decode import read
from quaver.audio.encode import FORMATS, HEADERLESS, save
from quaver.cli.main import run

LONG = "This goes on and on, from one end of the page to the other. " * 20
REPORTED = {
    *(
        "model",
        "revision",
        "recipe",
        "recipe_reason",
        "notes",
        "device",
        "sample_rate",
        "voice",
        "seed",
        "out",
        "format",
    ),
    *("prompt_tokens", "tokens", "frames", "queue_seconds", "segments", "finish_reasons"),
    *("characters_left_out", "left_out"),
    *("audio_seconds", "busy_seconds", "load_seconds", "ttfa_seconds", "rtf"),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tiny model's tensors are too small to share among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_wav(data: bytes) -> bool:
    """A streamed WAV: 44 bytes of header without lengths, then 16-bit samples."""
    riff, size, wave, _, _, pcm, channels, rate, _, _, bits = struct.unpack(
        "<4sI4s4sIHHIIHH", data[:36]
    )
    assert (riff, wave, pcm, channels, rate, bits) == (b"RIFF", b"WAVE", 1, 1, 24000, 16)
    return size == 0xFFFFFFFF and data[36:40] == b"data" and len(data) % 2 == 0


def test_a_file_is_written_and_told_on_stderr(tiny_checkpoint: Path, here: Path) -> None:
    done = quaver("say", *SHORT, "--model", tiny_checkpoint, folder=here)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"quaver.wav: ")
    assert files(here) == ["quaver.wav"]


def test_stdout_holds_audio_alone_and_stderr_the_report(tiny_checkpoint: Path, here: Path) -> None:
    done = quaver("say", *SHORT, "--model", tiny_checkpoint, "--out", "-", "--json", folder=here)
    report = json.loads(done.stderr)
    assert done.returncode == 0
    assert is_wav(done.stdout)
    assert len(done.stdout) == 44 + 2 * round(report["audio_seconds"] * report["sample_rate"])
    assert files(here) == []


def test_the_report(tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["say", *SHORT, "--model", str(tiny_checkpoint), "--voice", "ben", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == REPORTED
    assert (report["voice"], report["seed"]) == ("ben", 46)
    assert report["recipe"] in ("int8", "fp32")  # by what the CPU multiplies
    assert report["rtf"] == pytest.approx(report["busy_seconds"] / report["audio_seconds"])


def test_the_recipe_that_was_taken_is_told(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say = ["say", *SHORT, "--model", str(tiny_checkpoint), "--json", "--recipe"]
    assert run([*say, "auto"]) == 0
    done = capsys.readouterr()
    report = json.loads(done.out)
    assert f"recipe {report['recipe']}: {report['recipe_reason']}\n" in done.err
    assert run([*say, "int8,head=int8"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["recipe"], report["recipe_reason"]) == ("int8,head=int8", None)


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in HEADERLESS])
def test_every_format_can_be_read_again(tiny_checkpoint: Path, here: Path, format: str) -> None:
    assert run(["say", *SHORT, "--model", str(tiny_checkpoint), "--out", f"a.{format}"]) == 0
    assert files(here) == [f"a.{format}"]
    assert np.abs(read(f"a.{format}", 24000)).max() > 0.01


def test_a_rate_is_written(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say = ["say", *SHORT, "--model", str(tiny_checkpoint), "--seed", "5", "--json"]
    reports, sizes = {}, {}
    for name, extra in (
        *(("a.wav", []), ("a.pcm", []), ("b.wav", ["--rate", "16000"]), ("a.ulaw", [])),
        *(("b.alaw", ["--rate", "8000"]), ("b.pcm", ["--rate", "48000"])),
    ):
        assert run([*say, "--out", name, *extra]) == 0
        reports[name] = json.loads(capsys.readouterr().out)
        sizes[name] = Path(name).stat().st_size - (44 if name.endswith("wav") else 0)
    rates = {name: report["sample_rate"] for name, report in reports.items()}
    assert rates == {
        "a.wav": 24000,
        "a.pcm": 24000,
        "b.wav": 16000,
        "a.ulaw": 8000,
        "b.alaw": 8000,
        "b.pcm": 48000,
    }
    samples = sizes["a.wav"] // 2
    assert reports["a.ulaw"]["format"] == "g711_ulaw"
    assert sizes["a.pcm"] // 2 == samples
    assert sizes["b.wav"] // 2 == round(samples * 2 / 3)
    assert sizes["a.ulaw"] == sizes["b.alaw"] == round(samples / 3)
    assert sizes["b.pcm"] // 2 == 2 * samples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "7999"], "the sample rate is 7999 Hz; allowed is 8000 to 48000"),
        (["--rate", "-1"], "the sample rate is -1 Hz"),
        (["--out", "a.ulaw", "--rate", "16000"], "16000 Hz; g711_ulaw has 8000"),
        (["--out", "a.opus", "--rate", "44100"], "44100 Hz; opus has 8000, 12000, 16000, 24000"),
        (["--format", "g711"], "the format is 'g711'; allowed are wav, mp3"),
    ],
)
def test_a_rate_is_refused_before_the_model_is_loaded(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["say", *SHORT, "--model", "no-such-model", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert files(here) == []


def test_a_format_without_an_ending(tiny_checkpoint: Path, here: Path) -> None:
    assert run(["say", *SHORT, "--model", str(tiny_checkpoint), "--format", "flac"]) == 0
    assert (here / "quaver.flac").read_bytes()[:4] == b"fLaC"


def test_seeds_repeat(tiny_checkpoint: Path, here: Path) -> None:
    say = ["say", *SHORT, "--model", str(tiny_checkpoint)]
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert run([*say, "--seed", seed, "--out", f"{name}.wav"]) == 0
    a, b, c = (Path(f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


def test_a_voice_is_cloned(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say = ["say", *SHORT, "--model", str(tiny_checkpoint)]
    assert run([*say, "--out", "me.wav"]) == 0
    cloning = ["--reference", "me.wav", "--reference-text", "Hi.", "--low-latency"]
    assert run([*say, *cloning, "--no-codec-noise", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["voice"] is None


def test_other_ends_than_a_stop_are_told(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in "012":
        assert run(["say", "A.", "--model", str(tiny_checkpoint), "--seed", seed, "--json"]) == 0
        out, err = capsys.readouterr()
        stopped = json.loads(out)["finish_reasons"] == ["stop"]
        assert len(err.splitlines()) == (1 if stopped else 2)
        assert ("warning" in err) is not stopped


def test_what_the_model_cannot_read_is_told(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say = ["say", "**Hi** \U0001f389.", *SHORT[1:], "--model", str(tiny_checkpoint), "--json"]
    assert run(say) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["characters_left_out"], report["left_out"]) == (1, ["U+1F389 (PARTY POPPER)"])
    told = "left out 1 character that the model cannot read: U+1F389 (PARTY POPPER)"
    assert f"quaver: warning: {told}\n" in err


def test_modes_of_normalization(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say = ["say", "$5.", *SHORT[1:], "--model", str(tiny_checkpoint), "--json"]
    tokens = {}
    for mode in ("auto", "full", "light", "off"):
        assert run([*say, "--normalize", mode]) == 0
        tokens[mode] = json.loads(capsys.readouterr().out)["prompt_tokens"]
    assert tokens["auto"] == tokens["full"] == tokens["off"] + len("five dollars.") - len("$5.")
    assert tokens["light"] == tokens["off"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["\u4f60\u597d"], "U+4F60 (CJK UNIFIED IDEOGRAPH-4F60)"),
        (["Hi \u2603.", "--strict"], "U+2603 (SNOWMAN)"),
        (["Hi.", "--reference", "me.wav", "--reference-text", "..."], "no letter or digit"),
    ],
)
def test_text_that_cannot_be_read_is_told_before_weights_are_loaded(
    arguments: list[str],
    told: str,
    tiny_checkpoint: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save(here / "me.wav", np.zeros(24000, np.float32), 24000)
    monkeypatch.setattr("quaver.loading.load", lambda **options: 1 / 0)
    assert run(["say", "--model", str(tiny_checkpoint), *arguments]) == 2
    check_told(capsys.readouterr().err, told)


def test_nothing_to_say_says_something(
    tiny_checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["say", *SHORT[1:], "--model", str(tiny_checkpoint)]) == 0
    assert "no text was given" in capsys.readouterr().err
    assert files(here) == ["quaver.wav"]


def test_text_from_stdin_and_from_a_file(tiny_checkpoint: Path, here: Path) -> None:
    say = ("say", *SHORT[1:], "--model", tiny_checkpoint, "--out", "-", "--seed", "4")
    (here / "text").write_bytes(b"\xef\xbb\xbfHi.\r\n")
    piped, filed = quaver(*say, "-", stdin=b"Hi."), quaver(*say, "--file", here / "text")
    assert piped.returncode == filed.returncode == 0
    assert is_wav(piped.stdout)
    assert piped.stdout == filed.stdout


def test_a_closed_pipe_ends_quietly(tiny_checkpoint: Path, here: Path) -> None:
    arguments = ("say", LONG, "--model", tiny_checkpoint, "--out", "-", "--top-p", "1")
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.read(44)[:4] == b"RIFF"
        running.stdout.close()
        assert running.wait(600) == 0
        assert running.stderr.read() == b""


@needs_posix
def test_ctrl_c_leaves_no_file(tiny_checkpoint: Path, here: Path) -> None:
    arguments = ("say", LONG, "--model", tiny_checkpoint, "--out", "a.wav", "--top-p", "1")
    with subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=here,
        # a test run in the background has the signal ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as running:
        deadline = time.monotonic() + 600
        while sum(file.stat().st_size for file in here.glob(".quaver-*.part")) == 0:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(600) == 130
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert files(here) == []


EARLY = {
    "no text": ([""], "the text is empty"),
    "two texts": (["Hi.", "--file", "text"], "give one of them"),
    "no such file": (["--file", "nowhere"], "does not exist"),
    "a folder as file": (["--file", "."], "is a directory"),
    "a binary file": (["--file", "binary"], "not text in UTF-8"),
    "an empty file": (["--file", "empty"], "the text is empty"),
    "a huge file": (["--file", "huge"], "split it"),
    "an unknown ending": (["Hi.", "--out", "a.ogg"], "allowed are wav, mp3"),
    "no ending": (["Hi.", "--out", "a"], "allowed are wav, mp3"),
    "an unknown format": (["Hi.", "--format", "ogg"], "allowed are wav, mp3"),
    "no such folder": (["Hi.", "--out", "nowhere/a.wav"], "does not exist"),
    "a folder as target": (["Hi.", "--out", ".", "--format", "wav"], "is a folder"),
    "a reference without text": (["Hi.", "--reference", "text"], "--reference-text"),
    "a corrupt reference": (["Hi.", "--reference", "binary", "--reference-text", "x"], "not a"),
    "no such reference": (["Hi.", "--reference", "no.wav"], "does not exist"),
    "sampling out of range": (["Hi.", "--top-p", "2"], "top_p is 2.0"),
    "sampling that is no number": (["Hi.", "--top-k", "many"], "'--top-k'"),
    "a negative seed": (["Hi.", "--seed", "-1"], "'--seed'"),
    "nothing to speak": (["..."], "no letter or digit to speak: '...'"),
    "an emoji alone": (["\U0001f389"], "no letter or digit to speak"),
    "an unknown mode": (["Hi.", "--normalize", "most"], "allowed are auto, full, light, off"),
    "an unknown option": (["Hi.", "--loud"], "No such option"),
    "two words": (["Hi", "there"], "unexpected extra argument"),
}
LATE = {
    "an unknown voice": (["Hi.", "--voice", "zoe"], "voices are ada, ben"),
    "unknown characters, strictly": (["Hi \u2603", "--strict"], "U+2603 (SNOWMAN)"),
    "a script that is unknown": (["\u4f60\u597d"], "U+4F60 (CJK UNIFIED IDEOGRAPH-4F60)"),
    "a tag alone": (["<laugh>"], "the model cannot read <laugh>"),
    "a huge text": (["--file", "long"], "at most"),
    "an unknown recipe": (["Hi.", "--recipe", "fp9"], "allowed are fp32"),
    "an unknown device": (["Hi.", "--device", "tpu"], "allowed are cpu"),
    "no checkpoint": (["Hi.", "--model", "."], "has no config.json"),
    "a file as model": (["Hi.", "--model", "text"], "is a file"),
    "no model": (["Hi.", "--model", "nothing"], "is not known"),
    "a broken checkpoint": (["Hi.", "--model", "broken"], "is not valid JSON"),
    "no such codec": (["Hi.", "--codec", "nothing"], "is not known"),
}


def material(folder: Path) -> list[str]:
    (folder / "text").write_text("Hi.")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "empty").write_bytes(b" \n")
    (folder / "huge").write_bytes(b"a" * (5 * 2**20))
    (folder / "long").write_bytes(b"word " * 50_000)
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    return files(folder)


def check_told(err: str, expected: str) -> None:
    """One line, with what is wrong in it."""
    assert err.startswith("quaver: ")
    assert err.count("\n") == 1
    assert expected.lower() in err.lower()


@pytest.mark.parametrize(("arguments", "told"), EARLY.values(), ids=EARLY)
def test_mistakes_told_before_loading(
    arguments: list[str],
    told: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = material(here)
    monkeypatch.setitem(sys.modules, "quaver.loading", None)  # importing it would fail
    assert run(["say", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    check_told(err, told)
    assert files(here) == present


@pytest.mark.parametrize(("arguments", "told"), LATE.values(), ids=LATE)
def test_mistakes_told_after_loading(
    arguments: list[str],
    told: str,
    tiny_checkpoint: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    present = material(here)
    assert run(["say", "--model", str(tiny_checkpoint), *arguments]) == 2
    check_told(capsys.readouterr().err, told)
    assert files(here) == present


def test_mistakes_in_a_process(tiny_checkpoint: Path, here: Path) -> None:
    for arguments in (("--model", here), ("--seed", "x"), ("--out", "a.exe")):
        done = quaver("say", "Hi.", *arguments, folder=here)
        assert (done.returncode, done.stdout) == (2, b"")
        check_told(done.stderr.decode(), "")
    assert files(here) == []


@needs_linux
def test_a_full_disk(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = ["--out", "/dev/full", "--format", "wav"]
    assert run(["say", *SHORT, "--model", str(tiny_checkpoint), *full]) == 2
    check_told(capsys.readouterr().err, "no space left")


@needs_linux
def test_no_permission(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["say", "Hi.", "--out", "/proc/a.wav"]) == 2
    check_told(capsys.readouterr().err, "cannot write /proc/a.wav")


@needs_posix
def test_a_named_pipe(tiny_checkpoint: Path, here: Path) -> None:
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, cwd=here) as reader:
        out = ["--out", "pipe", "--format", "wav"]
        assert run(["say", *SHORT, "--model", str(tiny_checkpoint), *out]) == 0
        assert is_wav(reader.communicate(timeout=600)[0])


@pytest.mark.parametrize("error", [MemoryError("no more"), torch.OutOfMemoryError("CUDA: no more")])
def test_running_out_of_memory_is_one_line(
    error: Exception,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(**options: object) -> None:
        raise error

    monkeypatch.setattr("quaver.loading.load", full)
    assert run(["say", *SHORT]) == 2
    assert "out of memory; give a recipe with smaller weights" in capsys.readouterr().err
    monkeypatch.setattr("quaver.loading.load", lambda **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(["say", *SHORT])
