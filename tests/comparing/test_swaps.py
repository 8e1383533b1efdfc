"""Damage in one part is found in that part, and named."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quaver.comparing.blame import ANYWHERE, AROUND, PLACES, SPEED, culprits, sentence
from quaver.comparing.forced import logits
from quaver.comparing.swaps import Part, Swap, mixed, parts_of, swap
from quaver.loading import open_model
from quaver.precision import Role
from quaver.quality import metrics as judges
from quaver.quality.finding import Finding, Layer
from quaver.quality.gates import DEFAULTS, Gate, Measure, judge
from quaver.quality.metrics import JUDGES, OURS
from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Estimate
from quaver.quantizing.speech import speak

NONE = NotMeasured("")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    return open_model(tiny_checkpoint, "fp32", "cpu", slots=1)


@pytest.fixture(scope="module")
def said(reference):
    texts = ["Hi.", "Go on."]
    spoken = speak(reference.model, reference.folder, texts, 0, reference.device)
    return list(zip(texts, spoken, strict=True))


def damaged(folder, tmp_path, pattern, scale=1.5):
    """The same checkpoint with the tensors whose names hold `pattern` scaled."""
    other = tmp_path / "damaged"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    assert [name for name in tensors if pattern in name]
    save_file(
        {n: t * scale if pattern in n else t for n, t in tensors.items()},
        other / "model.safetensors",
    )
    return open_model(other, "fp32", "cpu", slots=1)


def divergence(swaps):
    return {each.part.name: each.kl.value for each in swaps}


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("layers.1.mlp.down_proj", {"backbone", "layer 1"}),
        ("embed_tokens", {"embed", "head"}),  # they are one
    ],
)
def test_damage_shows_in_its_part_alone(reference, said, tiny_checkpoint, tmp_path, pattern, parts):
    candidate = damaged(tiny_checkpoint, tmp_path, pattern)
    before = logits(reference, said[0][1])
    seen = []
    found = divergence(swap(reference, candidate, said, seen.append))
    assert {name for name, kl in found.items() if kl > 1e-9} == parts
    assert list(found) == [part.name for part in parts_of(reference)]
    assert seen[-1] == len(said) * len(found)
    after = logits(reference, said[0][1])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "it was changed"


def test_a_model_in_its_own_parts_is_itself(reference, said):
    assert set(divergence(swap(reference, reference, said, print)).values()) == {0.0}


def test_parts_of_other_precision(reference, said, tiny_checkpoint):
    """bf16 layers between fp32 ones, and another cache."""
    candidate = open_model(tiny_checkpoint, "bf16,kv=fp8-e5m2", "cpu", slots=1)
    found = divergence(swap(reference, candidate, said, print))
    assert all(0 < kl < 0.1 for kl in found.values()), found
    assert found["kv"] > found["head"]
    with_cache = mixed(reference, candidate, Part(Role.KV))
    assert with_cache.keeping is candidate.keeping and with_cache.model is reference.model


def swaps(**kl):
    names = {"layer_0": Part(Role.BACKBONE, 0), "layer_1": Part(Role.BACKBONE, 1)}
    return [
        Swap(names.get(name) or Part(Role(name)), Estimate(x, 0.9 * x, 1.1 * x, 6))
        for name, x in kl.items()
    ]


def verdicts(words=0.0, spectrum=0.99, snr=120.0):
    gates = {
        "words": Gate("wer", Measure.CHANGE, 0.01),
        "spectrum": Gate("spectral-correlation", Measure.LEVEL, 0.95),
    }
    exact = [Estimate(x, x, x, 9) for x in (words, spectrum, snr)]
    findings = [
        Finding("wer", Layer.SPEECH, "", False, "", NONE, NONE, exact[0], NONE),
        Finding("spectral-correlation", Layer.CODEC, "", True, "", NONE, exact[1], NONE, NONE),
        Finding("snr", Layer.CODEC, "", True, "", NONE, exact[2], NONE, NONE),
    ]
    return judge(gates, findings), findings


@pytest.mark.parametrize(
    ("harm", "kl", "names"),
    [
        ({}, {"backbone": 2.0}, []),  # nothing fails
        ({"words": 0.2}, {"backbone": 0.001, "kv": 0.001}, [AROUND]),
        ({"words": 0.2}, {"backbone": 0.001, "kv": 0.4}, ["kv"]),
        ({"words": 0.2}, {"backbone": 0.4, "layer_0": 0.2, "layer_1": 0.21}, ["backbone"]),
        ({"words": 0.2}, {"backbone": 0.4, "layer_0": 0.01, "layer_1": 0.4}, ["layer 1"]),
        ({"spectrum": 0.8}, {"backbone": 0.001}, ["codec"]),
        ({"spectrum": 0.8, "words": 0.2}, {"head": 0.3}, ["codec", "head"]),
        ({"words": 0.2, "snr": 28.0}, {"head": 0.001}, ["codec"]),
        ({"words": 0.2, "snr": 50.0}, {"head": 0.001}, [AROUND]),
        ({"snr": 28.0}, {"head": 0.001}, []),
    ],
)
def test_the_part_that_did_it_is_named(harm, kl, names):
    outcomes, findings = verdicts(**harm)
    found = culprits(outcomes, findings, swaps(**kl))
    assert found == names
    told = sentence(found, swaps(**kl), outcomes)
    assert all(name in told for name in names)


FORCED, CODEC = ("kl", "top-1", "stop-shift"), ("spectral-correlation", "snr", "mr-stft")
QUIET, LOUD = {"backbone": 0.02, "head": 0.001}, {"backbone": 0.4, "head": 0.001}


def failing(metrics, snr=120.0):
    """Outcomes and findings where a requirement on each of `metrics` fails, by 1 with 0.1 allowed,
    and one on a metric that is not among them passes."""
    gates = {f"on {name}": Gate(name, Measure.LEVEL, 0.1) for name in (*metrics, "passes")}
    layers = {"rtf": Layer.SPEED, **dict.fromkeys(FORCED, Layer.FORCED)}
    layers |= dict.fromkeys(CODEC, Layer.CODEC)
    values = {**dict.fromkeys(metrics, 1.0), "passes": 0.0}
    findings = [
        Finding(
            *(name, layers.get(name, Layer.SPEECH), "", False, ""),
            *(NONE, Estimate(x, x, x, 9), NONE, NONE),
        )
        for name, x in values.items()
    ]
    if "snr" not in metrics:
        level = Estimate(snr, snr, snr, 9)
        findings.append(Finding("snr", Layer.CODEC, "", True, "", NONE, level, NONE, NONE))
    return judge(gates, findings), findings


@pytest.mark.parametrize(
    ("metrics", "kl", "snr", "names", "told"),
    [
        # time says nothing about prompts or voices, however loud a part is
        (["rtf"], QUIET, 120, [SPEED], "It is the speed alone: a harm of 1 s of work"),
        (["rtf"], LOUD, 20, [SPEED], "on a quiet machine"),
        (["rtf", "wer"], LOUD, 120, ["backbone", SPEED], "It is also the speed"),
        (["rtf", "wer"], QUIET, 120, [AROUND, SPEED], "look at prompts, the tokenizer"),
        # by requirement, where no part of the model is at fault
        (["wer"], QUIET, 120, [AROUND], "look at prompts, the tokenizer and sampling."),
        (["alignment"], QUIET, 120, [AROUND], "the tokenizer and sampling."),
        (["voice"], QUIET, 120, [AROUND], "look at voices and prompts."),
        (["speaker-similarity"], QUIET, 120, [AROUND], "look at voices and prompts."),
        (["pitch"], QUIET, 120, [AROUND], "look at voices and sample rates."),
        (["duration"], QUIET, 120, [AROUND], "look at sample rates and frames"),
        (["pause-noise"], QUIET, 120, [AROUND], "look at the codec's noise"),
        (["mos"], QUIET, 120, [AROUND], "look at sampling and what is done to samples."),
        (["failures"], QUIET, 120, [AROUND], "the end of speech"),
        (["wer", "alignment", "voice"], QUIET, 120, [AROUND], "sampling; voices and prompts."),
        (["of others"], QUIET, 120, [AROUND], f"look at {ANYWHERE}."),
        # by layer, where the same tokens or the same codes tell the sides apart
        (["kl"], QUIET, 120, ["backbone"], "changes what is said next by 0.02 nats"),
        (["stop-shift"], QUIET, 120, ["backbone"], "It is the backbone"),
        (["top-1", "voice"], QUIET, 120, ["backbone"], "It is the backbone"),
        (["mr-stft"], QUIET, 120, ["codec"], "the same codes sound different"),
        (["snr"], QUIET, 120, ["codec"], "the same codes sound different"),
        (["pause-noise"], QUIET, 20, ["codec"], "the same codes sound different"),
        (["voice"], LOUD, 120, ["backbone"], "It is the backbone"),
        (["kl", "mr-stft"], LOUD, 120, ["codec", "backbone"], "codec (the same codes"),
        ([], LOUD, 20, [], "No requirement fails"),
    ],
)
def test_each_requirement_is_blamed_on_what_can_break_it(metrics, kl, snr, names, told):
    outcomes, findings = failing(metrics, snr)
    found = culprits(outcomes, findings, swaps(**kl))
    assert found == names
    said = sentence(found, swaps(**kl), outcomes)
    assert told in said
    assert (AROUND in said) == (AROUND in names)
    assert ("speed" in said) == (SPEED in names)


def test_every_place_is_of_a_metric_that_there_is():
    sources = {line.split(":")[0] for line in (*OURS, *JUDGES.values())}
    root = Path(judges.__file__).parent
    known = {
        name
        for source in sources
        for name in re.findall(r'^    name = "(.+)"', (root / f"{source}.py").read_text(), re.M)
    }
    assert set(PLACES) <= known
    spoken = {gate.metric for gate in DEFAULTS.values()} - {"kl", "spectral-correlation", "rtf"}
    assert spoken <= set(PLACES)
