"""Rows of text and spoken form by kind, and what must hold for any text."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reported import REPORTED
from tables import FULL, LIGHT, OTHER

import quaver
from quaver.text.feed import SentenceFeed
from quaver.text.normalization import normalize

NANO = Path(quaver.__file__).parent / "bundled" / "nano" / "config.json"
ALPHABET = set(json.loads(NANO.read_text())["orpheus"]["alphabet"])
FULL_ROWS = [(kind, *row) for kind, rows in FULL.items() for row in rows]
WORDS = "the cat sat on a warm mat and looked at us while rain fell over old towns".split()
prose = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(
    lambda words: " ".join(words).capitalize() + "."
)
written = st.text(
    st.sampled_from(list("ab Z.,!?'\"-()*_#`~|<>[]/\\:;&@$%€£0123456789\n\u200b\u2011🎉é½²½×")),
    max_size=80,
)
MODES = pytest.mark.parametrize("mode", ["full", "light", "off"])


@pytest.mark.parametrize(("kind", "text", "spoken"), FULL_ROWS)
def test_full(kind: str, text: str, spoken: str) -> None:
    assert normalize(text) == spoken, kind


@pytest.mark.parametrize(("text", "spoken"), LIGHT)
def test_light(text: str, spoken: str) -> None:
    assert normalize(text, "light") == spoken


@pytest.mark.parametrize(("language", "text", "spoken"), OTHER)
def test_other_languages(language: str, text: str, spoken: str) -> None:
    assert normalize(text, "full", language) == spoken


def test_there_are_enough_rows() -> None:
    assert len(FULL_ROWS) + len(LIGHT) + len(OTHER) + len(REPORTED) >= 400


@MODES
@settings(deadline=None, max_examples=150)
@given(text=written)
def test_normalized_text_stays_as_it_is(mode: str, text: str) -> None:
    once = normalize(text, mode)
    assert normalize(once, mode) == once


@MODES
@settings(deadline=None, max_examples=50)
@given(sentences=st.lists(prose, min_size=1, max_size=3))
def test_plain_prose_keeps_its_words(mode: str, sentences: list[str]) -> None:
    text = " ".join(sentences)
    assert normalize(text, mode) == text


@settings(deadline=None, max_examples=150)
@given(before=written, word=st.sampled_from(WORDS), after=written)
def test_a_word_on_a_line_of_its_own_is_spoken(before: str, word: str, after: str) -> None:
    if {"`", "~", "|", "<", "$", "[", "\\"} & set(before + after):
        return  # they may open a block that is left out
    assert word in normalize(f"{before}\n\n{word} {word}\n\n{after}").lower()


@settings(deadline=None, max_examples=150)
@given(text=written)
def test_full_english_is_in_the_alphabet_of_the_bundled_voice(text: str) -> None:
    plain = normalize(text).replace("é", "e").replace("\n", " ")
    assert set(plain) <= ALPHABET
    assert not re.search(r"\d", plain)


@pytest.mark.parametrize("mode", ["full", "light"])
def test_emotion_tags_stay(mode: str) -> None:
    text = "Well <laugh> I <clear throat> see."
    assert normalize(text, mode) == text


@settings(deadline=None, max_examples=100)
@given(text=written, cuts=st.lists(st.integers(0, 80), max_size=6))
def test_pieces_make_no_difference_to_a_feed(text: str, cuts: list[int]) -> None:
    whole = SentenceFeed(200, "full")
    at_once = [*whole.push(text), *whole.finish()]
    feed, places = (
        SentenceFeed(200, "full"),
        sorted({0, len(text), *(min(c, len(text)) for c in cuts)}),
    )
    pieces = [text[a:b] for a, b in pairwise(places)]
    found = [sentence for piece in pieces for sentence in feed.push(piece)]
    assert [*found, *feed.finish()] == at_once


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "run",
    ["*", "_", "[", "<", "`", "9", "1,", "$", "a.", "([", "~", "|", "- ", "#", "](", "**a", "<b>",
     "1/", " $$", "\n\n>", "a@", "http://", "\n>", "A", "é", "🎉", "&amp;", "'", "1:", "!["],
)  # fmt: skip
def test_runs_take_linear_time(run: str) -> None:
    normalize((run * 200_000)[:200_000])
