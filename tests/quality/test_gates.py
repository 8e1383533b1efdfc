"""Gates: what passes, what fails, what is open, and files that change them."""

import pytest

from quaver.core.errors import ConfigError
from quaver.quality.finding import Finding, Layer
from quaver.quality.gates import DEFAULTS, Gate, Measure, judge, overall, read_gates
from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Estimate, Verdict

NONE = NotMeasured("no judge")


def around(value, spread=0.0):
    return Estimate(value, value - spread, value + spread, 50)


def found(metric, *, better=False, reference=NONE, candidate=NONE, change=NONE):
    return Finding(metric, Layer.SPEECH, "", better, "test 1", reference, candidate, change, NONE)


def verdict(name, finding, **changed):
    return judge({name: DEFAULTS[name]}, [finding])[0].decision.verdict


@pytest.mark.parametrize(
    ("reference", "change", "spread", "wanted"),
    [
        (0.02, 0.004, 0.0, Verdict.PASS),  # half a point is allowed where 5 % would be less
        (0.20, 0.009, 0.0, Verdict.PASS),  # 5 % of a fifth is a point
        (0.20, 0.011, 0.0, Verdict.FAIL),
        (0.20, 0.000, 0.02, Verdict.NOT_RESOLVED),
        (0.20, -0.05, 0.01, Verdict.PASS),
        (0.20, 0.05, 0.01, Verdict.FAIL),
    ],
)
def test_words(reference, change, spread, wanted):
    finding = found("wer", reference=around(reference), change=around(change, spread))
    assert verdict("words", finding) is wanted


@pytest.mark.parametrize(
    ("value", "spread", "wanted"),
    [(0.97, 0.01, Verdict.PASS), (0.93, 0.01, Verdict.FAIL), (0.96, 0.02, Verdict.NOT_RESOLVED)],
)
def test_a_level_that_must_be_high(value, spread, wanted):
    finding = found("spectral-correlation", better=True, candidate=around(value, spread))
    assert verdict("spectrum", finding) is wanted


@pytest.mark.parametrize(
    ("change", "wanted"), [(-0.3, Verdict.FAIL), (-0.1, Verdict.PASS), (0.5, Verdict.PASS)]
)
def test_a_fall_of_what_should_be_high(change, wanted):
    assert verdict("opinion", found("mos", better=True, change=around(change))) is wanted


@pytest.mark.parametrize(
    ("change", "spread", "wanted"),
    [
        (0.02, 0.01, Verdict.PASS),  # 2 % of 3 s is 0.06 s, either way
        (-0.02, 0.01, Verdict.PASS),
        (0.00, 0.05, Verdict.PASS),
        (0.09, 0.02, Verdict.FAIL),
        (-0.09, 0.02, Verdict.FAIL),
        (0.00, 0.07, Verdict.NOT_RESOLVED),
        (-0.05, 0.03, Verdict.NOT_RESOLVED),
    ],
)
def test_a_shift_counts_either_way(change, spread, wanted):
    finding = found("duration", reference=around(3.0), change=around(change, spread))
    assert verdict("pace", finding) is wanted


def test_what_is_not_measured_does_not_pass():
    missing = judge(DEFAULTS, [])
    assert {outcome.decision.verdict for outcome in missing} == {Verdict.NOT_MEASURED}
    assert overall(missing) is Verdict.NOT_RESOLVED
    refused = judge({"opinion": DEFAULTS["opinion"]}, [found("mos", better=True)])
    assert refused[0].harm == NONE


def test_the_worst_gate_decides():
    good = found("failures", candidate=around(0.0))
    bad = found("wer", reference=around(0.1), change=around(0.2))
    gates = {name: DEFAULTS[name] for name in ("failures", "words", "opinion")}
    assert overall(judge(gates, [good, bad])) is Verdict.FAIL
    assert overall(judge(gates, [good])) is Verdict.NOT_RESOLVED
    assert overall(judge({"failures": DEFAULTS["failures"]}, [good])) is Verdict.PASS


def test_a_file_changes_and_adds(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text(
        "[gates.words]\nrelative = 0.2\n[gates.opinion]\nenabled = false\n"
        '[gates.pitch]\nmetric = "pitch"\nmeasure = "level"\nmargin = 40\n'
    )
    gates = read_gates(path)
    assert gates["words"] == Gate("wer", Measure.CHANGE, 0.005, 0.2)
    assert gates["pitch"] == Gate("pitch", Measure.LEVEL, 40.0)
    assert gates["noise"] == DEFAULTS["noise"]
    assert "opinion" not in {outcome.name for outcome in judge(gates, [])}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gates.words]\nmargins = 1", "unknown keys .'margins'"),
        ("[gates]\nwords = 1", "unknown keys 1"),
        ("gates = 3", "must be a table"),
        ("[gate.words]\nmargin = 1", "unknown keys .'gate'"),
        ("[gates.words]\nmargin = 'much'", "a number is needed"),
        ("[gates.words]\nmargin = nan", "a number is needed"),
        ("[gates.words]\nrelative = -0.1", "not below 0"),
        ("[gates.words]\nmeasure = 'rise'", "allowed are change, shift, level"),
        ("[gates.mine]\nmetric = 'wer'", "is new and lacks"),
        ("[gates.words\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, message):
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_gates(path)
    with pytest.raises(ConfigError, match="no gates at"):
        read_gates(tmp_path / "none.toml")
