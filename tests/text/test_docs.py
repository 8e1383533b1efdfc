"""The examples of docs/text.md are what is spoken."""

import re
import runpy
from pathlib import Path

import pytest

from quaver.text.normalization import normalize

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "text.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [\w ]+ \| `([^`]+)` \| ([^|`]+) \|$", PAGE, flags=re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("text", "spoken"), ROWS)
def test_an_example_is_right(text: str, spoken: str) -> None:
    assert normalize(text) == spoken


def test_sentences_of_the_benchmark_are_written_out_as_by_hand() -> None:
    sentences = runpy.run_path(str(ROOT / "benchmarks" / "normalization.py"))["SENTENCES"]
    assert len(sentences) == 40
    for text, spoken in sentences:
        assert normalize(text) == spoken
