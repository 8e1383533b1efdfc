"""A service that judges itself: injected damage is switched off, chance is not."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from quaver.loading import open_model
from quaver.loading.mixture import Fallback
from quaver.quality.gates import DEFAULTS, Gate, Measure
from quaver.quality.metrics.failures import failures
from quaver.quality.metrics.metric import NotMeasured, Score, Speech
from quaver.quality.stats import Estimate
from quaver.quality.watch import STRIKES, WINDOW, Level, Watch

LADDER = ("kv", "backbone", "codec")
BASELINE = {
    "failures": Level(Estimate(0.0, 0.0, 0.01, 300), higher_is_better=False),
    "mos": Level(Estimate(4.0, 3.98, 4.02, 300), higher_is_better=True),
    "rtf": Level(Estimate(0.30, 0.29, 0.31, 300), higher_is_better=False),
}


class Service:
    """Speaks with numbers; every part that is not as in the reference may do harm."""

    def __init__(self, harm, seed=0):
        self.harm, self.random = harm, np.random.default_rng(seed)
        self.low = set(LADDER)

    def revert(self, part):
        self.low.remove(part)

    def speak(self):
        hurt = {}
        for part in self.low & set(self.harm):
            for name, more in self.harm[part].items():
                hurt[name] = hurt.get(name, 0.0) + more
        failed = self.random.random() < 0.002 + hurt.get("failures", 0.0)
        return {
            "failures": Score(float(failed)),
            "mos": Score(4.0 + hurt.get("mos", 0.0) + self.random.normal(0, 0.35)),
            "rtf": Score(0.30 + hurt.get("rtf", 0.0) + self.random.normal(0, 0.02), 3.0),
        }


def serve(harm, utterances, seed=0, gates=DEFAULTS):
    service = Service(harm, seed)
    watch = Watch(gates, BASELINE, ladder=LADDER, switch=service.revert)
    for _ in range(utterances):
        watch.hear(service.speak())
    return watch, service


def test_a_healthy_service_is_left_alone():
    for seed in range(10):
        watch, service = serve({}, 2000, seed)
        assert not watch.switched and service.low == set(LADDER)
    assert watch.heard == 2000


@pytest.mark.parametrize(
    ("harm", "because"),
    [
        ({"failures": 0.3}, "failures"),
        ({"mos": -0.6}, "opinion"),
        ({"rtf": 0.1}, "speed"),
    ],
)
def test_the_part_that_does_harm_goes_back(harm, because, caplog):
    watch, service = serve({"kv": harm}, 6 * WINDOW)
    assert [(done.part, done.because) for done in watch.switched] == [("kv", (because,))]
    assert watch.switched[0].after == STRIKES * WINDOW
    assert service.low == {"backbone", "codec"} and not watch.alarmed
    assert watch.looks[because] == STRIKES
    assert "kv goes back" in caplog.text


def test_parts_go_back_one_by_one_until_it_helps():
    watch, service = serve({"backbone": {"mos": -1.0}}, 10 * WINDOW)
    assert [done.part for done in watch.switched] == ["kv", "backbone"]
    assert service.low == {"codec"}


def test_harm_from_elsewhere_ends_with_the_reference(caplog):
    watch = Watch(DEFAULTS, BASELINE, ladder=LADDER, switch=lambda part: None)
    for _ in range(20 * WINDOW):
        watch.hear({"rtf": Score(0.9)})
    assert watch.exhausted and len(watch.switched) == len(LADDER)
    assert "every part is as in the reference" in caplog.text


def test_one_bad_look_is_not_enough():
    """Hysteresis: an alarm that passes resets the count."""
    watch = Watch(DEFAULTS, BASELINE, ladder=LADDER, switch=lambda part: None)
    for look in range(8):
        for _ in range(WINDOW):
            watch.hear({"rtf": Score(0.9 if look % 2 == 0 else 0.3)})
        assert watch.alarmed == (look % 2 == 0)
    assert not watch.switched and watch.looks["speed"] == 4


def test_harm_within_the_margin_is_not_harm():
    watch, _ = serve({"kv": {"mos": -0.15, "rtf": 0.02}}, 2000)
    assert not watch.switched


def test_what_is_not_measured_is_counted_and_decides_nothing():
    gates = {"opinion": Gate("mos", Measure.CHANGE, 0.2)}
    watch = Watch(gates, BASELINE, ladder=LADDER, switch=lambda part: None)
    for number in range(3 * WINDOW):
        heard = number % 10 == 0
        watch.hear({"mos": Score(1.0) if heard else NotMeasured("too short")})
    assert not watch.switched and watch.missed["mos"] == 3 * WINDOW * 9 // 10


def test_windows_that_make_no_sense():
    for window, strikes in ((1, 2), (50, 0)):
        with pytest.raises(ValueError, match="at least 2 and 1"):
            Watch({}, {}, ladder=(), switch=print, window=window, strikes=strikes)


def test_a_damaged_codec_is_caught_and_replaced(tiny_checkpoint, tmp_path):
    """The whole way: broken speech, judged, and a model that goes back part by part."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    weights = load_file(broken / "codec" / "model.safetensors")
    last = [name for name in weights if name.startswith("decoder") and name.endswith("bias")][-1]
    weights[last] += 0.5  # an offset in every sample
    save_file(weights, broken / "codec" / "model.safetensors")
    sides = [open_model(folder, "fp32", "cpu", slots=1) for folder in (tiny_checkpoint, broken)]
    model = Fallback(*sides)
    gates = {"failures": Gate("failures", Measure.LEVEL, 0.01)}
    ladder = ("kv", "backbone", "head", "embed", "codec")
    watch = Watch(gates, BASELINE, ladder=ladder, switch=model.revert, window=3, strikes=1)
    assert has_offset(model.current)
    for _ in range(20):
        watch.hear({"failures": Score(float(has_offset(model.current)))})
    assert [done.part for done in watch.switched] == list(ladder)
    assert watch.looks["failures"] == len(ladder) and not has_offset(model.current)
    assert has_offset(sides[1]), "the damaged model itself is as it was"


def has_offset(model):
    audio = model.synthesizer.generate("Hi.", seed=46)
    return "dc" in failures(Speech(audio.samples, audio.sample_rate, "Hi."))
