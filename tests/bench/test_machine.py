"""Every result has its machine."""

import json

import pytest

from quaver.bench.machine import write_result


def test_a_result_is_whole_and_names_its_machine(tmp_path):
    path = tmp_path / "deep" / "report.json"
    write_result(path, {"value": 1.5})
    written = json.loads(path.read_text())
    assert written["value"] == 1.5
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["versions"]["numpy"]
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_a_value_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path / "report.json", {"value": float("nan")})
    assert not (tmp_path / "report.json").exists()
