"""The register of metrics: names, what is missing, and folders."""

import re
from importlib.metadata import PackageNotFoundError

import pytest

from quaver.core.errors import ConfigError, InputError, UnsupportedError
from quaver.quality.gates import DEFAULTS
from quaver.quality.metrics import JUDGES, OURS, _class, find_metrics, packages
from quaver.quality.metrics.metric import Kind, NotMeasured

CLASSES = [_class(place) for place in (*OURS, *JUDGES.values())]
OPTIONAL = {"mos": "distillmos", "speaker-similarity": "resemblyzer"}
OPTIONAL |= {"estoi": "pystoi", "pesq": "pesq", "wer": "jiwer", "failures": "scipy"}


@pytest.mark.parametrize("metric", CLASSES, ids=lambda metric: metric.name)
def test_a_metric_says_what_it_is(metric):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", metric.name)
    assert metric.valid_for and "\n" not in metric.valid_for
    assert isinstance(metric.higher_is_better, bool) and isinstance(metric.unit, str)
    assert metric.kind in Kind


def test_names_are_unique_and_those_that_gates_use():
    names = [metric.name for metric in CLASSES]
    assert len(set(names)) == len(names)
    assert {gate.metric for gate in DEFAULTS.values()} <= {
        *names,
        "rtf",
        "kl",
    }  # those two are of no utterance


def test_metrics_are_found_by_their_names():
    found = find_metrics()
    assert list(found) == [metric.name for metric in CLASSES[: len(OURS)]]
    for name, metric in found.items():
        if not isinstance(metric, NotMeasured):
            assert metric.name == name and metric.version


def test_what_is_not_installed_is_not_measured_and_says_what_to_install(monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(packages, "version", missing)
    found = find_metrics()
    for name, package in OPTIONAL.items():
        assert isinstance(found[name], NotMeasured)
        assert re.search(f"needs {package}; install it with pip install", found[name].reason)
        with pytest.raises(UnsupportedError, match=package):
            next(metric for metric in CLASSES if metric.name == name)()
    assert {"snr", "pitch", "voice", "pause-noise"} <= {
        name for name, metric in found.items() if not isinstance(metric, NotMeasured)
    }


def test_a_folder_that_does_not_fit_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="no judge parrot; there are whisper, wavlm, utmos"):
        find_metrics({"parrot": tmp_path})
    for judge in JUDGES:
        with pytest.raises(InputError, match=judge):
            find_metrics({judge: tmp_path})
