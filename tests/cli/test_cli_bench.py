"""`quaver bench`: what it prints and writes, and how it refuses."""

import json
import wave

import pytest

from command import quaver
from quaver.cli.main import run
from quaver.loading import seeded

KEYS = {
    *("shape", "recipe", "streams", "tokens_per_s_per_stream", "floor_tokens_per_s"),
    *("share_of_floor", "rtf", "ttfa_ms", "underrun_free_share", "cold_start_s", "baseline"),
}


@pytest.mark.slow
def test_a_benchmark_from_beginning_to_end(tiny_checkpoint, tmp_path):
    out = tmp_path / "result.json"
    done = quaver(
        *("bench", str(tiny_checkpoint), "--recipe", "fp32", "--streams", "1,3"),
        *("--seconds", "0.5", "--repeats", "2", "--cold", "--baseline", "transformers"),
        *("--text", "Hello.", "--markdown"),
        *("--out", str(out), "--plot", str(tmp_path / "plot.svg")),
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.decode()
    printed = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert [each["streams"] for each in printed] == [1, 3]
    assert printed[0].keys() >= KEYS
    assert printed[0]["prompt_tokens"] < 20
    assert printed[0]["machine"]["versions"]["torch"]
    assert printed[0]["baseline"]["tokens_per_s"] > 0 and printed[0]["cold_start_s"] > 0.5
    assert "baseline" not in printed[1]
    assert "% of it" in told and "| `fp32` | 3 |" in told
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    assert json.loads(out.read_text())["benchmark"][1]["streams"] == 3
    again = quaver("bench", "compare", str(out), str(out))
    assert again.stdout.count(b"same") == 2


@pytest.mark.slow
def test_a_shape_is_made_and_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    small = seeded.ORPHEUS_3B | {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    monkeypatch.setitem(seeded.SHAPES, "orpheus-3b", small)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["bench", "--shape", "orpheus-3b", "--layers", "1", "--seconds", "0.2"]) == 0
    assert not list(tmp_path.glob("quaver-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one MODEL"),
        (["nano", "--shape", "orpheus-3b"], "give one MODEL"),
        (["nano", "other"], "give one MODEL"),
        (["compare", "a.json"], "takes two results"),
        (["compare", "a.json", "b.json"], "cannot read a.json"),
        (["nano", "--streams", "1,x"], "give numbers"),
        (["nano", "--streams", "0"], "--streams is 0"),
        (
            ["nano", "--streams", "1,9999"],
            "--streams is 1,9999; allowed is more",
        ),
        (["nano", "--seconds", "nan"], "--seconds is nan"),
        (["nano", "--repeats", "0"], "--repeats is 0"),
        (["nano", "--lengths", "15,x"], "--lengths is '15,x'; give numbers of characters"),
        (["nano", "--lengths", ""], "--lengths is ''"),
        (["nano", "--lengths", "0"], "from 1 to 10,000, such as 15,75,250"),
        (["nano", "--lengths", "15,10001"], "--lengths is '15,10001'"),
        (["nano", "--text", " "], "--text has 0 characters; give 1 to 180"),
        (["nano", "--text", "a" * 181], "--text has 181 characters"),
        (["nano", "--baseline", "vllm"], "allowed is transformers"),
        (["nano", "--plot", "a.bmp"], "allowed endings are .png, .svg"),
        (["--shape", "orpheus-9b"], "allowed is orpheus-3b"),
        (["no-such-model"], "no-such-model"),
        (["nano", "--recipe", "fp9"], "fp9"),
        (["nano", "--device", "tpu"], "unknown device"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    assert run(["bench", *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err and len(told.err.splitlines()) == 1
    assert told.out == ""


def test_a_baseline_that_is_not_installed_is_told_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("quaver.bench.baseline.find_spec", lambda name: None)
    monkeypatch.setattr("quaver.cli.bench._measure", lambda *given: pytest.fail("measured"))
    assert run(["bench", "nano", "--baseline", "transformers"]) == 2
    assert "pip install transformers" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_told(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    short = ["bench", str(tiny_checkpoint), "--seconds", "0.1", "--repeats", "1"]
    assert run([*short, "--out", str(tmp_path / "file" / "a.json")]) == 2
    told = capsys.readouterr()
    assert "cannot be written" in told.err
    assert told.out == ""  # it is told before anything is measured


def test_lengths_are_timed_and_what_was_spoken_is_kept(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "deep" / "kept"
    short = ["bench", str(tiny_checkpoint), "--seconds", "0.2", "--repeats", "2", "--seed", "5"]
    more = ["--streams", "2", "--lengths", "1,6", "--keep-audio", str(folder)]
    assert run([*short, *more, "--recipe", "fp32", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["characters"] for each in row["lengths"]] == [1, 6]
    assert all(each["sound_s"] > 0 and each["rtf"] > 0 for each in row["lengths"])
    assert row["rss_peak_gb"] >= row["rss_gb"] > 0.05 and row["threads"] == 1
    names = {path.name for path in folder.iterdir()}
    assert names == {
        f"streams-2{length}-run-{number}-stream-{stream}-seed-{5 + 2 * (number - 1) + stream}.wav"
        for length in ("", "-chars-1", "-chars-6")
        for number in (1, 2)
        for stream in (0, 1)
    }
    with wave.open(str(folder / "streams-2-run-1-stream-0-seed-5.wav")) as opened:
        assert 0.2 <= opened.getnframes() / opened.getframerate() < 0.5


def test_audio_that_cannot_be_kept_is_told_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("quaver.cli.bench._measure", lambda *given: pytest.fail("measured"))
    assert run(["bench", "nano", "--keep-audio", str(tmp_path / "file" / "in")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_process_that_cannot_speak_is_told():
    from quaver.bench.cold import cold_start
    from quaver.core.errors import InputError

    with pytest.raises(InputError, match=r"could not speak: .*no-such-model"):
        cold_start("no-such-model", None, None)
