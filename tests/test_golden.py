"""A checkpoint kept with the tests says what transformers and snac say of it in float64.

It would catch a change that both sides of a parity test share, or that came with a library.
`golden/make.py` made it.
"""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from quaver.core.types import FinishReason, SamplingParams
from quaver.engine.engine import Job
from quaver.loading import load
from quaver.synthesizer import SpeechSynthesizer

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
TEXT, VOICE = EXPECTED["text"], EXPECTED["voice"]
GREEDY = EXPECTED["sampling"] | {"temperature": 0.0}


@pytest.fixture(scope="module")
def voice(device) -> SpeechSynthesizer:
    return load(GOLDEN / "checkpoint", "fp32", str(device), slots=1, max_length=512)


def test_the_prompt(voice):
    assert list(voice._family.prompt(TEXT, VOICE, None).tokens) == EXPECTED["prompt"]


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
def test_the_codes(voice, kind):
    sampling = SamplingParams(**(GREEDY if kind == "greedy" else EXPECTED["sampling"]))
    prompt = voice._family.prompt(TEXT, VOICE, None)
    limit = voice._family.max_frames(TEXT)
    stream = voice._engine.submit(Job(prompt, sampling, EXPECTED["seed"], limit))
    assert [frame.tolist() for frame in stream] == EXPECTED[kind]
    ended = FinishReason.LENGTH if len(EXPECTED[kind]) == limit else FinishReason.STOP
    assert stream.finish_reason is ended


@pytest.mark.parametrize("kind", ["greedy_quiet", "sampled_noisy"])
def test_the_sound(voice, kind):
    sampling = GREEDY if kind == "greedy_quiet" else EXPECTED["sampling"]
    noise = kind == "sampled_noisy"
    audio = voice.generate(TEXT, seed=EXPECTED["seed"], codec_noise=noise, **sampling)
    assert len(audio.samples) == EXPECTED["samples"][kind]
    wave = audio.samples.astype(np.float64)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(EXPECTED["rms"][kind], rel=1e-5)
    with np.load(GOLDEN / "expected.npz") as stored:
        expected = stored[kind].astype(np.float64)
    picked = wave[np.linspace(0, len(wave) - 1, len(expected)).astype(np.int64)]
    assert np.abs(picked).max() > 0.05
    assert np.allclose(picked, expected, rtol=1e-3, atol=1e-5)  # float16's rounding


def test_it_is_small():
    kept = [*GOLDEN.glob("checkpoint/**/*.*"), *GOLDEN.glob("expected.*")]
    assert sum(path.stat().st_size for path in kept) < 100_000


@pytest.mark.slow
def test_the_script_makes_it_again(tmp_path):
    runpy.run_path(str(GOLDEN / "make.py"))["write"](tmp_path)
    made = json.loads((tmp_path / "expected.json").read_text())
    assert {k: v for k, v in made.items() if k != "rms"} == {
        k: v for k, v in EXPECTED.items() if k != "rms"
    }
    assert made["rms"] == pytest.approx(EXPECTED["rms"], rel=1e-9)
    for path in sorted(tmp_path.glob("checkpoint/**/*.*")):
        assert path.read_bytes() == (GOLDEN / path.relative_to(tmp_path)).read_bytes()
