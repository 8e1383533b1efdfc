"""The examples of docs/text.md are what is spoken."""

import re
from pathlib import Path

import pytest

from quaver.text.normalization import normalize

PAGE = (Path(__file__).parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [\w ]+ \| `([^`]+)` \| ([^|`]+) \|$", PAGE, flags=re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("text", "spoken"), ROWS)
def test_an_example_is_right(text: str, spoken: str) -> None:
    assert normalize(text) == spoken
