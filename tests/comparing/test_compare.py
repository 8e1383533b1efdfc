"""Two models beside each other: what is found, what is refused, and going on after a stop."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from command import quaver as run_quaver
from quaver import comparing
from quaver.comparing import Named, compare
from quaver.comparing.findings import MOST_MISSING, speech_findings
from quaver.comparing.ledger import Ledger
from quaver.comparing.panel import Item, make_panel
from quaver.comparing.report import content
from quaver.core.errors import ConfigError, InputError
from quaver.loading import open_text
from quaver.quality.finding import Layer
from quaver.quality.gates import DEFAULTS, overall
from quaver.quality.metrics import find_metrics
from quaver.quality.metrics.metric import Kind, NotMeasured, Score
from quaver.quality.stats import Estimate, Verdict
from quaver.quantizing import quantize

TEXTS = ("Hi.", "Go on.")


class Loudness:
    """A judge that needs no packages."""

    name, version, unit, higher_is_better = "loudness", "1", "", True
    kind, valid_for = Kind.SPEECH, "anything"

    def __init__(self, kind=Kind.SPEECH):
        self.kind, self.heard = kind, 0

    def measure(self, candidate, reference=None):
        self.heard += 1
        sound = candidate.samples if reference is None else candidate.samples - reference.samples
        return Score(float(np.abs(sound).mean()))


@pytest.fixture
def judges(monkeypatch):
    found = {
        "loudness": Loudness(),
        "apart": Loudness(Kind.PAIRED),
        "mos": NotMeasured("no judge"),
    }
    monkeypatch.setattr(comparing, "find_metrics", lambda judges: found)
    return found


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


def run(reference, candidate, out, texts, **more):
    sides = (Named(str(reference), "fp32"), Named(str(candidate), more.pop("recipe", "fp32")))
    return compare(*sides, out, texts=texts, device="cpu", **more)


def finding(found, metric):
    return next(each for each in found.findings if each.metric == metric)


def test_a_model_is_itself(tiny_checkpoint, tmp_path, texts, judges):
    found = run(tiny_checkpoint, tiny_checkpoint, tmp_path / "out", texts)
    assert finding(found, "kl").candidate.value == pytest.approx(0.0, abs=1e-9)
    assert finding(found, "top-1").candidate.value == 1.0
    assert finding(found, "apart").candidate.value == 0.0
    assert finding(found, "loudness").change.value != 0.0, "it spoke under another seed"
    assert isinstance(finding(found, "kl").reference, NotMeasured), "the reference is exact"
    assert finding(found, "mos").candidate == NotMeasured("no judge")
    # a busy machine may speak slower the second time
    timeless = [outcome for outcome in found.outcomes if outcome.name != "speed"]
    assert overall(timeless) is Verdict.NOT_RESOLVED
    for side in ("reference", "candidate", "again"):
        assert len(list((tmp_path / "out" / "audio" / side).glob("*.wav"))) == len(TEXTS)


def test_a_recipe_is_told_apart(tiny_checkpoint, tmp_path, texts, judges):
    found = run(tiny_checkpoint, tiny_checkpoint, tmp_path / "out", texts, recipe="nf4")
    kl, control = finding(found, "kl"), finding(found, "kl").reference
    assert kl.layer is Layer.FORCED and kl.candidate.low > 1e-6
    assert isinstance(control, NotMeasured)
    half = run(tiny_checkpoint, tiny_checkpoint, tmp_path / "other", texts, recipe="bf16")
    assert finding(half, "kl").candidate.high < kl.candidate.low
    rows = content(found)["by_position"]
    assert len(rows) == 7 and sum(row["n"] for row in rows) % 7 == 0


def test_the_reference_has_a_control_where_it_is_not_exact(
    tiny_checkpoint, tmp_path, texts, judges
):
    sides = Named(str(tiny_checkpoint), "bf16"), Named(str(tiny_checkpoint), "nf4")
    found = compare(*sides, tmp_path / "out", texts=texts, device="cpu")
    control = finding(found, "kl").reference
    assert isinstance(control, Estimate) and 0 < control.value < finding(found, "kl").candidate.low


def test_two_folders(tiny_checkpoint, tmp_path, texts, judges):
    quantize(str(tiny_checkpoint), tmp_path / "int8", "int8", device="cpu")
    sides = Named(str(tiny_checkpoint), "fp32"), Named(str(tmp_path / "int8"), None)
    found = compare(*sides, tmp_path / "out", texts=texts, device="cpu")
    assert found.setup["candidate"]["recipe"] == "int8"
    assert found.setup["weights"]["candidate"] != found.setup["weights"]["reference"]


def test_what_was_heard_is_not_made_again(tiny_checkpoint, tmp_path, texts, judges):
    out = tmp_path / "out"
    first = run(tiny_checkpoint, tiny_checkpoint, out, texts, recipe="int8")
    heard = judges["loudness"].heard
    assert heard == 3 * len(TEXTS)
    lines = (out / "work.jsonl").read_text().splitlines(keepends=True)
    (out / "work.jsonl").write_text("".join(lines[:-2]) + lines[-2][:20])  # a kill, mid-line
    again = run(tiny_checkpoint, tiny_checkpoint, out, texts, recipe="int8")
    assert judges["loudness"].heard == heard + 2
    assert finding(again, "loudness") == finding(first, "loudness")
    assert (out / "work.jsonl").read_text().splitlines()[:-2] == [x.strip() for x in lines[:-2]]
    with pytest.raises(InputError, match="holds another comparison"):
        run(tiny_checkpoint, tiny_checkpoint, out, texts, recipe="nf4")


def test_speech_of_the_reference_is_taken_over(tiny_checkpoint, tmp_path, texts, judges):
    first = run(tiny_checkpoint, tiny_checkpoint, tmp_path / "a", texts, recipe="int8")
    heard = judges["loudness"].heard
    again = run(
        tiny_checkpoint, tiny_checkpoint, tmp_path / "b", texts, recipe="nf4", like=tmp_path / "a"
    )
    assert judges["loudness"].heard == heard + len(TEXTS), "the candidate alone spoke"
    assert finding(again, "loudness").reference == finding(first, "loudness").reference
    assert finding(again, "loudness").null == finding(first, "loudness").null
    assert isinstance(finding(again, "rtf").change, NotMeasured)
    for side in ("reference", "again"):
        old, new = (sorted((tmp_path / x / "audio" / side).iterdir()) for x in "ab")
        assert [path.read_bytes() for path in old] == [path.read_bytes() for path in new]
    with pytest.raises(InputError, match="another seed;"):
        run(tiny_checkpoint, tiny_checkpoint, tmp_path / "c", texts, seed=1, like=tmp_path / "a")
    with pytest.raises(InputError, match="is no comparison"):
        run(tiny_checkpoint, tiny_checkpoint, tmp_path / "c", texts, like=tmp_path)


def test_models_that_cannot_be_compared(tiny_checkpoint, tmp_path, texts, judges):
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(tokenizer, indent=3))
    with pytest.raises(InputError, match="different tokenizers"):
        run(tiny_checkpoint, other, tmp_path / "out", texts)
    config = json.loads((other / "config.json").read_text())
    config["orpheus"]["voices"] = ["someone"]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="different voices"):
        run(tiny_checkpoint, other, tmp_path / "out", texts)
    assert not (tmp_path / "out").exists(), "before anything is made"


def test_another_codec_is_heard(tiny_checkpoint, tmp_path, texts, judges):
    """One layer of the codec off by 2: the same codes sound different."""
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    weights = load_file(other / "codec" / "model.safetensors")
    name = next(n for n in weights if n.startswith("decoder") and n.endswith("weight"))
    weights[name] = 2 * weights[name]
    save_file(weights, other / "codec" / "model.safetensors")
    found = run(tiny_checkpoint, other, tmp_path / "out", texts)
    assert finding(found, "kl").candidate.value == pytest.approx(0.0, abs=1e-9)
    assert finding(found, "apart").candidate.low > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no text"), ("x" * 401, "one of 401 letters"), ("a\n" * 2001, "2001 texts")],
)
def test_a_panel_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "texts.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        make_panel(("ada",), path, quick=False, runs=1)
    with pytest.raises(InputError, match="--seeds is 0"):
        make_panel(("ada",), None, quick=False, runs=0)


def test_a_panel_is_read_by_all_voices_in_turn():
    panel = make_panel(("ada", "ben"), None, quick=True, runs=3)
    items = list(panel)
    assert len(items) == len(panel) == 30
    assert {item.voice for item in items} == {"ada", "ben"}
    assert len({item.key for item in items}) == 30


def test_a_panel_is_in_the_words_that_are_spoken(tmp_path, tiny_checkpoint):
    family = open_text(tiny_checkpoint)
    path = tmp_path / "texts.txt"
    path.write_text("**Bold** and $5.\nGreat job! \U0001f389\nGreat job!\n")
    panel = make_panel(("ada",), path, quick=False, runs=2).spoken_by(family)
    assert panel.texts == ("Bold and five dollars.", "Great job!")
    assert len(panel) == 4
    path.write_text("Hello.\n---\n")
    with pytest.raises(InputError, match="text 2 of the panel: the text has no letter or digit"):
        make_panel(("ada",), path, quick=False, runs=1).spoken_by(family)
    ours = make_panel(("ada",), None, quick=False, runs=1)
    assert ours.spoken_by(family) == ours  # plain prose stays as it is


def test_models_that_know_emotion_tags_read_some():
    plain, tagged = (make_panel(("ada",), None, quick=True, runs=1, tags=t) for t in (False, True))
    assert tagged.texts[: len(plain)] == plain.texts
    assert all("<" in text for text in tagged.texts[len(plain) :]) and len(tagged) == len(plain) + 8


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds something else"):
        Ledger(tmp_path, {})
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_judge_that_hears_too_little_is_not_believed():
    def rows(missing):
        kept = [{"value": 0.5, "weight": 1.0}] * (20 - missing)
        kept += [{"reason": "too short"}] * missing
        texts = (Item(i, f"text {i}", None, 0) for i in range(20))
        speed = {"value": 1.0, "weight": 1.0}
        return [
            (item, {"loudness": one, "rtf": speed}) for item, one in zip(texts, kept, strict=True)
        ]

    few, many = int(20 * MOST_MISSING), int(20 * MOST_MISSING) + 1
    for missing, measured in ((few, True), (many, False)):
        heard = dict.fromkeys(("reference", "candidate", "again"), rows(missing))
        cell = speech_findings(heard, {"loudness": Loudness()})[0].candidate
        assert isinstance(cell, Estimate) == measured
        assert measured or f"{missing} of 20" in cell.reason


def test_metrics_of_others(monkeypatch):
    class Entry:
        name, value = "loudness", "mine:Loudness"

        def load(self):
            return Loudness

    monkeypatch.setattr("quaver.quality.metrics.entry_points", lambda group: [Entry()])
    assert isinstance(find_metrics()["loudness"], Loudness)
    Entry.name = "wer"
    with pytest.raises(ConfigError, match="which there is already"):
        find_metrics()


@pytest.mark.slow
def test_the_verb(tiny_checkpoint, tmp_path, texts):
    """Noise for a voice fails nothing and passes nothing: the verdict is open, and said so."""
    out = tmp_path / "out"
    arguments = ["compare", str(tiny_checkpoint), "--recipe", "nf4", "--out", str(out)]
    done = run_quaver(*arguments, "--texts", str(texts), "--device", "cpu", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == {"fail": 1, "not resolved": 3}[report["verdict"]]
    assert report == {
        key: value
        for key, value in json.loads((out / "report.json").read_text()).items()
        if key != "machine"
    }
    assert {row["name"] for row in report["requirements"]} >= {"words", "failures", "speed"}


OFF = "".join(f"[gates.{name}]\nenabled = false\n" for name in DEFAULTS if name != "choices")
GATES = OFF + "[gates.choices]\nmargin = %s\n"


@pytest.mark.slow
@pytest.mark.parametrize(("margin", "status", "verdict"), [(1.0, 0, "pass"), (0.0, 1, "fail")])
def test_a_checkpoint_is_kept_if_it_passes(
    tiny_checkpoint, tmp_path, texts, margin, status, verdict
):
    out, gates = tmp_path / "int8", tmp_path / "gates.toml"
    gates.write_text(GATES % margin)
    arguments = ("quantize", tiny_checkpoint, out, "--recipe", "int8", "--json", "--device", "cpu")
    done = run_quaver(*arguments, "--gate", "--gates", gates, "--texts", texts)
    assert done.returncode == status, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == verdict
    assert json.loads((Path(told["proof"]) / "report.json").read_text())["verdict"] == verdict
    kept = {"int8"} if verdict == "pass" else {"int8-refused"}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "gates.toml", "texts.txt"}
    if verdict == "pass":
        assert (out / "model.safetensors").is_file() and told["proof"] == str(out / "quality")


def test_options_of_a_gate_alone(tiny_checkpoint, tmp_path):
    done = run_quaver("quantize", tiny_checkpoint, tmp_path / "out", "--recipe", "int8", "--quick")
    assert done.returncode == 2 and b"belong to --gate" in done.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_to_compare_with(tiny_checkpoint, tmp_path):
    done = run_quaver("compare", str(tiny_checkpoint), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and b"give --recipe" in done.stderr
    assert not (tmp_path / "out").exists()


def test_voices_of_a_fine_tune_can_be_named(tiny_checkpoint):
    named = Named(str(tiny_checkpoint), "fp32", ("elise", "tom")).open("cpu")
    assert named.prompts.voices == ("elise", "tom")
