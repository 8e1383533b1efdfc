"""Segments: nothing lost, nothing too long, cut where a reader would pause."""

import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quaver.core.errors import InputError
from quaver.text import segments as text_module
from quaver.text.segments import Segment, iter_segments, split_text

WORDS = [
    *("a", "Mr.", "U.S.A.", "3.14", "well...", "stop.", "Really?", "x" * 90, '"Go!"', "…", "so,"),
    *("and", "<laugh>", "<sigh><cough>", "\n", "\n\n", "\x00", "e\u0301", "はい。", "नमस्ते।"),
]
texts = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=60).map("".join),
)
DROPPED = "\u00ad\u200b\u2060\ufeff"


def sentences(text: str) -> list[str]:
    """The sentences found, through segments too small to hold two of them."""
    segments = split_text(text, 40)
    assert all(len(s.text) <= 40 for s in segments)
    return [s.text for s in segments]


def characters(text: str) -> str:
    visible = (c for c in text if unicodedata.category(c) not in ("Cc", "Cs") or c.isspace())
    kept = "".join(c for c in visible if c not in DROPPED)
    return re.sub(r"\s", "", unicodedata.normalize("NFC", kept))


@given(texts, st.integers(40, 200))
@example("\x1fa\x85b\u2028c\u2029d", 40)
@example("<" + "a" * 31 + ">" + "b" * 80, 40)
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_is_too_long(text: str, max_chars: int) -> None:
    segments = split_text(text, max_chars)
    assert re.sub(r"\s", "", "".join(s.text for s in segments)) == characters(text)
    for segment in segments:
        assert segment.text == segment.text.strip() != ""
        assert len(segment.text) <= max_chars
        assert not re.search(r"[\x00-\x1f]", segment.text)
    assert [s.pause for s in segments[-1:]] == [0.0] * bool(segments)
    assert all(s.pause in (0.6, 0.35, 0.15, 0.05) for s in segments[:-1])


@given(st.lists(st.sampled_from(["word", "<laugh>", "<clear throat>", "y" * 70, "so,"])),
       st.sampled_from(["", " ", ", "]), st.integers(40, 80))  # fmt: skip
@settings(deadline=None)
def test_tags_are_never_cut(words: list[str], glue: str, max_chars: int) -> None:
    text = glue.join(words)
    found = [tag for s in split_text(text, max_chars) for tag in re.findall("<[^>]*>", s.text)]
    assert found == re.findall("<[^>]*>", text)


@pytest.mark.parametrize(
    "whole",
    [
        "I met Mr. Henry J. Fox of the U.S.A. Ok",
        "Pi is 3.14 or so, e.g. Then, No. 5 it",
        "Well... I am not sure. it goes on here",
        '"Where to?" he asked, "now!" and then',
        "See example.com or 10.5.2 Today at noon",
        "1. Peel the apples and wait for Dr. Who",
    ],
)
def test_what_does_not_end_a_sentence(whole: str) -> None:
    assert list(text_module._sentence_ends(whole)) == [len(whole)]


@pytest.mark.parametrize(
    "expected",
    [
        ["It rained for a whole week.", "Then the sun came out."],
        ['She said, "I will not go there."', "He went on his own."],
        ["What on earth do you mean by it?!", "Nothing at all, my dear."],
        ["It happened in the year of 1999.", "Nobody saw it coming."],
        ["It was over (or so they thought.)", "And on the next day..."],
        ["오늘은 날씨가 정말 좋네요. 산책을 가고 싶어요.", "내일은 비가 온다고 합니다."],
        ["यह एक बहुत ही अच्छा और सुंदर दिन है।", "चलो बाहर चलते हैं।"],
    ],
)
def test_what_ends_a_sentence(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


def test_chinese_and_japanese_stops_need_no_space() -> None:
    first = "今日はとても天気がいいので、朝早くから公園に行きました。"
    second = "「そこで古い友達に会いました。」"
    assert sentences(first + second) == [first, second]
    assert sentences("a" * 30 + "！" + "b" * 30) == ["a" * 30 + "！", "b" * 30]


def test_sentences_are_packed_but_paragraphs_are_not() -> None:
    assert split_text("One. Two.\nThree.\n\n \nFour.", 100) == [
        Segment("One. Two. Three.", 0.6),
        Segment("Four.", 0.0),
    ]


def test_pauses_tell_what_was_cut() -> None:
    clause = "when the long rain had stopped at last, the children ran out into the garden"
    assert split_text(f"It was late. {clause}.", 60)[0].pause == 0.15
    long = "the children ran into the garden " * 3
    assert {s.pause for s in split_text(long, 50)[:-1]} == {0.05}
    assert [s.pause for s in split_text(f"{'a' * 30}. {'B' * 30}.\n\nC", 40)] == [0.35, 0.6, 0.0]


def test_a_conjunction_begins_the_next_piece() -> None:
    pieces = split_text("the old captain counted his gold coins and the parrot watched him", 50)
    assert [p.text for p in pieces] == [
        "the old captain counted his gold coins",
        "and the parrot watched him",
    ]


def test_an_accent_stays_on_its_letter() -> None:
    pieces = split_text("x" * 39 + "q\u0301" + "x" * 20, 40)
    assert [p.text[0] for p in pieces] == ["x", "q"]


@pytest.mark.parametrize("text", ["", " \n\t", "\x00\u200b"])
def test_text_without_characters_has_no_segments(text: str) -> None:
    assert split_text(text, 100) == []


def test_a_small_limit_says_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"max_chars is 5; allowed is 40 or more"):
        split_text("hello", 5)


@pytest.mark.parametrize(
    "unit",
    ["The cat sat, and it slept. ", ".", "a", "<a", "word ", "a, ", "\n\n", "e\u0301\u0323"],
)
def test_a_megabyte_takes_linear_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    count = sum(len(s.text) for s in iter_segments(text, 200))
    assert time.process_time() - start < 2
    assert count or unit.isspace()
