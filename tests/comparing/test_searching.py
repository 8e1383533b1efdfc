"""Climbing to the smallest checkpoint that passes."""

import json

import pytest

from command import quaver as run_quaver
from quaver import comparing
from quaver.comparing import searching
from quaver.comparing.searching import climb, search
from quaver.comparing.swaps import Part, Swap
from quaver.core.errors import InputError
from quaver.loading import open_model
from quaver.precision import Format, Role, find_recipe
from quaver.quality.gates import DEFAULTS
from quaver.quality.stats import Estimate
from quaver.quantizing import quantize

OFF = "".join(f"[gates.{name}]\nenabled = false\n" for name in DEFAULTS if name != "choices")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Options of a search whose one requirement the KL of nf4 fails and that of bf16 meets."""
    monkeypatch.setattr(comparing, "find_metrics", lambda judges: {})
    texts, gates = tmp_path / "texts.txt", tmp_path / "gates.toml"
    texts.write_text("Hi.\nGo on.")

    def options(margin):
        gates.write_text(f"{OFF}[gates.choices]\nmargin = {margin}\n")
        return {"device": "cpu", "texts": texts, "gates": gates}

    return options


def make(checkpoint, made=None):
    def write(recipe, folder):
        if made is not None:
            made.append(recipe)
        return quantize(str(checkpoint), folder, recipe, device="cpu")

    return write


@pytest.mark.slow
def test_a_search_climbs_until_it_passes(tiny_checkpoint, tmp_path, asked):
    out, options = tmp_path / "out", asked(2e-6)  # nf4 is at 9e-6, half of it in either layer
    found = search(make(tiny_checkpoint), str(tiny_checkpoint), out, "nf4", **options)
    verdicts = [rung.verdict for rung in found.rungs]
    assert verdicts[-1] == "pass" and set(verdicts[:-1]) == {"fail"} and len(verdicts) > 1
    sizes = [rung.bytes for rung in found.rungs]
    assert sizes == sorted(sizes), "smallest first"
    assert found.rungs[0].failed == ("choices",)
    kept = open_model(out, None, "cpu", slots=1)
    layers = len(kept.model.backbone.layers)
    dense = [
        kept.recipe.layer_format(f"backbone.layers.{n}.mlp.down", Role.BACKBONE) is Format.BF16
        for n in range(layers)
    ]
    assert any(dense)
    report = json.loads((out / "quality" / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert not list(found.folder.glob("rung-*/made")), "weights that were refused are gone"


@pytest.mark.slow
def test_a_stopped_search_goes_on(tiny_checkpoint, tmp_path, asked, monkeypatch):
    out, options, made = tmp_path / "out", asked(2e-6), []
    keep = searching._write

    def stop(*arguments):
        keep(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        search(make(tiny_checkpoint, made), str(tiny_checkpoint), out, "nf4", **options)
    monkeypatch.setattr(searching, "_write", keep)
    assert made == ["nf4"] and not out.exists()
    found = search(make(tiny_checkpoint, made), str(tiny_checkpoint), out, "nf4", **options)
    assert made.count("nf4") == 1 and found.rungs[0].recipe == "nf4"
    assert out.exists() and found.kept is not None
    with pytest.raises(InputError, match="another search"):
        (out / "quality").rename(tmp_path / "elsewhere")
        again = tmp_path / "out2"
        found.folder.rename(tmp_path / "out2-search")
        search(make(tiny_checkpoint), str(tiny_checkpoint), again, "int8", **options)


@pytest.mark.slow
def test_nothing_is_kept_if_nothing_passes(tiny_checkpoint, tmp_path, asked):
    asked(-1.0)
    done = run_quaver(
        *("quantize", tiny_checkpoint, tmp_path / "out", "--recipe", "nf4", "--device", "cpu"),
        *("--search", "--texts", tmp_path / "texts.txt", "--gates", tmp_path / "gates.toml"),
        "--json",
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "fail" and len(told["rungs"]) >= 2
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out-search" / "rung-0" / "quality" / "report.json").is_file()


def test_the_ladder_keeps_the_worst_parts_first():
    def swaps(*kl):
        parts = [Part(Role.HEAD), Part(Role.KV), *(Part(Role.BACKBONE, n) for n in range(3))]
        return [Swap(p, Estimate(x, x, x, 6)) for p, x in zip(parts, kl, strict=True)]

    ladder = climb(find_recipe("fp8"), swaps(9.0, 0.2, 0.1, 0.3, 0.0))  # the head is bf16 already
    assert ladder == [
        "fp8,backbone.layers.1.*=bf16",
        "fp8,backbone.layers.1.*=bf16,kv=bf16",
        "fp8,backbone.layers.1.*=bf16,kv=bf16,backbone.layers.0.*=bf16,backbone.layers.2.*=bf16",
    ]
    assert all(str(find_recipe(recipe)) for recipe in ladder)
