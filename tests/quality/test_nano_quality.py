"""The benchmark of the bundled model must see planted damage and must not see any where none is."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from needs import needs_flite
from quaver.quality.panel import PLAIN_SENTENCES

PATH = Path(__file__).parents[2] / "benchmarks" / "nano_quality.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("nano_quality", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["nano_quality"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["nano_quality"]


@needs_flite
@pytest.mark.slow
def test_damage_is_counted_and_the_undamaged_voice_is_clean(bench):
    texts = PLAIN_SENTENCES[:3]

    def damaged(text, voice, seed):
        """slt: says nothing, half, and too much. rms: speaks with another voice."""
        speech = bench.flite(text, "awb" if voice == "rms" else voice, seed)
        kind = seed if voice == "slt" else 9
        samples = speech.samples
        if kind == 0:
            samples = samples[:0]
        if kind == 1:
            samples = samples[: len(samples) // 2]
        return bench.Spoken(samples, speech.sample_rate, ("length",) if kind == 2 else ("stop",))

    slt, rms, awb = bench.measure(("slt", "rms", "awb"), texts, bench.flite, damaged, seed=0)
    assert (slt.empty, slt.truncated, slt.runaway) == (1, 1, 1)
    assert slt.wer_difference > 0.3 and slt.interval[1] > 0.4
    assert rms.speaker_accuracy == 0
    assert awb.wer_difference == 0 and awb.interval == (0, 0)
    assert awb.empty == awb.runaway == awb.truncated == 0
    assert awb.duration_ratio == 1 and awb.speaker_accuracy == 1
    assert "slt" in bench.table([slt, rms])


def test_intervals_hold_a_planted_difference(bench):
    rng = np.random.default_rng(0)
    source = [(int(e), 10) for e in rng.binomial(10, 0.05, 60)]
    extra = rng.random(60) < 0.4
    model = [(e + int(more), n) for (e, n), more in zip(source, extra, strict=True)]
    low, high = bench.paired_interval(source, model, seed=0)
    planted = extra.mean() / 10
    assert planted - 0.02 < low < planted < high < planted + 0.02
    assert bench.paired_interval(source, source, seed=0) == (0, 0)


def test_spoken_seconds_leaves_out_the_silence_around(bench):
    samples = np.zeros(16_000, dtype=np.float32)
    assert bench.spoken_seconds(bench.Spoken(samples, 16_000)) == 0
    samples[4000:12_000] = 0.5
    assert bench.spoken_seconds(bench.Spoken(samples, 16_000)) == 0.5


@pytest.mark.parametrize("argv", [["--sentences", "61"], ["--sentences", "1"], ["--voices", "slt"]])
def test_bad_arguments_are_the_users_mistake(bench, argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(argv)
    assert stopped.value.code == 2
    assert argv[0] in capsys.readouterr().err


@needs_flite
def test_a_codec_alone_speaks_as_long_and_with_the_timing_of_its_source(bench):
    import quaver

    codec = Path(quaver.__file__).parent / "bundled" / "nano" / "codec"
    text = "Please close the window before you leave the house."
    source = bench.flite(text, "rms", 0)
    copy = bench.copying_synthesizer(codec)(text, "rms", 0)
    assert copy.sample_rate == 24000 and copy.finish_reasons == ("stop",)
    assert abs(bench.spoken_seconds(copy) - bench.spoken_seconds(source)) < 0.1

    def loudness(speech, step=0.05):
        sound = speech.samples[np.flatnonzero(np.abs(speech.samples) > 0.01)[0] :]
        size = int(step * speech.sample_rate)
        rows = sound[: len(sound) // size * size].reshape(-1, size)
        return np.log10(rows.std(axis=1) + 1e-3)

    first, second = loudness(source), loudness(copy)
    shared = min(len(first), len(second))
    assert np.corrcoef(first[:shared], second[:shared])[0, 1] > 0.8
