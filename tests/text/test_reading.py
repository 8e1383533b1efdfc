"""Text to readable segments: what is spoken, what is left out, and what is refused."""

import string
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quaver.core.errors import InputError, SilentTextError, UnreadableTextError
from quaver.families.orpheus.text import OrpheusText
from quaver.text.normalization import MODES
from quaver.text.reading import NAMED, LeftOut, check_speakable, describe, has_words, read_text

LETTERS = string.ascii_letters + string.digits + " .,?!'\"-:;()%$&"
PARTY = "\U0001f389"


def family(alphabet: str | None) -> OrpheusText:
    return OrpheusText(
        SimpleNamespace(alphabet=alphabet, voices=(), language=None, comfortable_chars=60)
    )


SMALL, RAW = family(LETTERS), family(None)


@pytest.mark.parametrize("model", [SMALL, RAW])
@pytest.mark.parametrize(
    "text", ["...", "!!!", "?", "-", "—", "* * *", PARTY, "\u0301\u0301", "« »"]
)
def test_text_without_a_letter_or_digit_is_refused(model, text):
    with pytest.raises(SilentTextError, match="the text has no letter or digit to speak: "):
        read_text(text, model)
    with pytest.raises(SilentTextError):
        check_speakable(text)


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\x00"])
def test_empty_text_is_called_empty(text):
    with pytest.raises(InputError, match="the text is empty"):
        read_text(text, SMALL)


def test_letters_of_an_unknown_script_are_named():
    with pytest.raises(SilentTextError) as error:
        read_text("\u4f60\u597d", SMALL)
    assert "cannot read U+4F60 (CJK UNIFIED IDEOGRAPH-4F60), U+597D (CJK" in str(error.value)
    assert error.value.left_out == 2
    assert read_text("\u4f60\u597d", RAW).text == "\u4f60\u597d"


@pytest.mark.parametrize("mode", MODES)
def test_a_digit_can_be_spoken(mode):
    assert has_words(read_text("5", SMALL, mode=mode).text)


def test_a_tag_can_be_spoken_by_a_model_that_reads_tags():
    assert read_text("<laugh>", RAW).text == "<laugh>"
    assert read_text("<laugh>", family(LETTERS + "<>")).text == "<laugh>"
    with pytest.raises(SilentTextError, match="cannot read <laugh>"):
        read_text("<laugh>", SMALL)
    with pytest.raises(SilentTextError, match="cannot read <laugh>"):
        read_text("<laugh>!", SMALL, mode="off")


def test_a_segment_with_nothing_left_is_skipped():
    reading = read_text("One.\n\n\u4f60\u597d\n\nTwo.\n\n...", SMALL)
    assert [segment.text for segment in reading.segments] == ["One.", "Two."]
    assert reading.segments[0].pause > 0
    assert reading.segments[-1].pause == 0  # although another was to follow
    assert reading.left_out.count == 2


@pytest.mark.parametrize(
    ("model", "text", "name"),
    [
        (SMALL, f"Great job! {PARTY}", "U+1F389 (PARTY POPPER)"),
        (RAW, f"Great job! {PARTY}", "U+1F389 (PARTY POPPER)"),
        (SMALL, "Good \u2764\ufe0f", "U+2764 (HEAVY BLACK HEART)"),
        (SMALL, "Say \u4f60", "U+4F60 (CJK UNIFIED IDEOGRAPH-4F60)"),
        (RAW, "Hi \ud83d there", "U+D83D (half of a surrogate pair)"),
        (SMALL, "A \ue000", "U+E000 (private use)"),
        (SMALL, "The \u2211 of it", "U+2211 (N-ARY SUMMATION)"),
        (SMALL, "Five \u00a4", "U+00A4 (CURRENCY SIGN)"),
    ],
)
def test_what_is_left_out_is_counted_and_strictly_refused(model, text, name):
    assert read_text(text, model).left_out == LeftOut(1, (name,))
    with pytest.raises(UnreadableTextError) as error:
        read_text(text, model, strict=True)
    assert name in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "A well\u2011known fact.",
        "Hel\u200dlo\u200e the\u202cre",
        "**bold** and *more*",
        "\u2022 One",
        "It\u02bcs 5 \u00a3",
        "5 \u00d7 3 \u2264 16 \u2192 yes, \u221e",
        "A \u251c\u2500 tree \u25a0",
        "Plain text, 3 of it.",
        "caf\u00e9",
    ],
)
def test_what_is_read_or_is_a_mark_of_the_layout_is_not_left_out(text):
    for model in (SMALL, RAW):
        assert read_text(text, model, strict=True).left_out == LeftOut()


def test_what_is_named_is_bounded():
    text = "a" + "".join(chr(0x4E00 + i) for i in range(500))
    left_out = read_text(text, SMALL).left_out
    assert (left_out.count, len(left_out.names)) == (500, NAMED)
    with pytest.raises(UnreadableTextError) as error:
        read_text(text, SMALL, strict=True)
    assert len(str(error.value)) < 700


def test_two_left_outs_add_up():
    one, two = LeftOut.of("\u2603\u2603"), LeftOut.of("\u2603\u2764")
    assert one + two == LeftOut(4, (describe("\u2603"), describe("\u2764")))


def test_unknown_modes_are_refused():
    for act in (lambda: read_text("a", SMALL, mode="most"), lambda: check_speakable("a", "most")):
        with pytest.raises(
            InputError, match="normalize is 'most'; allowed are auto, full, light, off"
        ):
            act()


@given(text=st.text(max_size=80), mode=st.sampled_from(MODES))
def test_any_text_is_read_or_refused(text, mode):
    for model in (SMALL, RAW):
        try:
            reading = read_text(text, model, mode=mode)
        except InputError:
            continue
        for segment in reading.segments:
            assert has_words(segment.text)
            assert model is RAW or set(segment.text) <= set(LETTERS)
            segment.text.encode()
        again = read_text(reading.text, model, mode="off", strict=True)
        assert again.text == reading.text  # what is readable stays as it is
