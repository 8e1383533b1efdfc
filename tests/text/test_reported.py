"""What other speech systems were reported to read wrong."""

import pytest
from reported import REPORTED

from quaver.text.normalization import normalize


@pytest.mark.parametrize(("report", "text", "spoken"), REPORTED)
def test_reported_text_is_spoken_right(report: str, text: str, spoken: str) -> None:
    assert normalize(text) == spoken, report


def test_there_are_enough_reports() -> None:
    assert len(REPORTED) >= 100
