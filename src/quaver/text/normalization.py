"""Text as chat models and people write it, turned into the words that are spoken."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from quaver.text.addresses import read_addresses
from quaver.text.blocks import read_blocks
from quaver.text.english import read_numbers
from quaver.text.folding import fold, fold_letters, fold_marks
from quaver.text.inline import strip_inline, unescape_entities
from quaver.text.languages import read_foreign_numbers
from quaver.text.numerals import cardinal
from quaver.text.segments import TAG, tidy
from quaver.text.wording import read_words

Mode = Literal["full", "light", "off"]
MODES: tuple[str, ...] = ("auto", "full", "light", "off")  # what a caller may ask for

_MOST_PASSES = 4
_LIST_NUMBER = re.compile(r"^(\d{1,3})\. (?=\S)", re.MULTILINE)
_DASH = re.compile(r"\s*(?:—|--+|\s[-–]+(?=\s))\s*|(?<=[^\W\d_])\s*–\s+|\s+–(?=\w)")
_SPACE_BEFORE = re.compile(r"[ \t]+(?=[,;:!?)]|\.(?!\w))")
_REPEATED = re.compile(r"([!?])\1+|\.{4,}|([,;:])(?:\s*[,;:])+|(?<!\.)\.\.(?!\.)")
_LOST_COMMA = re.compile(
    r"^[ \t]*[,;:]+[ \t]*|[,;:]+[ \t]*(?=[,.!?])|(?<=[.!?])[,;]+", re.MULTILINE
)
_TAGS = re.compile(TAG)
_KEPT = frozenset(" \n.,:;!?'\"()-")


def normalize(text: str, mode: Mode = "full", language: str = "en") -> str:
    """Return the spoken form of `text`.

    `off` only tidies spaces and control characters. `light` takes away what no model reads:
    invisible characters, emoji, Markdown, HTML. `full` also writes numbers, dates, prices,
    addresses and abbreviations as words, and leaves letters, spaces and `.,:;!?'"()-` only.
    Emotion tags such as <laugh> stay. `language` is an ISO 639-1 code; in a language that is not
    known digits stay. Without anything to say the result has no letter or digit, and may be empty.
    """
    if mode == "off":
        return tidy(text)
    for _ in range(_MOST_PASSES):  # marks may stand inside of marks
        spoken = _normalize(text, mode, language)
        if spoken == text:
            break
        text = spoken
    return text


def _normalize(text: str, mode: Mode, language: str) -> str:
    text = tidy(fold(tidy(unescape_entities(text))))
    text = strip_inline(read_blocks(text))
    if mode == "full":
        text = _speak(tidy(text), language)
    text = _SPACE_BEFORE.sub("", text)
    return tidy("\n".join(line.strip() for line in tidy(text).split("\n")))


def _speak(text: str, language: str) -> str:
    """Words for everything that is none, outside of emotion tags."""
    text = fold_letters(fold_marks(text), language)
    parts, at = [], 0
    for tag in _TAGS.finditer(text):
        parts += [_speak_plain(text[at : tag.start()], language), tag[0]]
        at = tag.end()
    return "".join([*parts, _speak_plain(text[at:], language)])


def _speak_plain(text: str, language: str) -> str:
    if language == "en":
        text = read_addresses(text)
        text = _LIST_NUMBER.sub(lambda m: f"{cardinal(m[1]).capitalize()}, ", text)
        text = read_words(read_numbers(text))
    else:
        text = read_foreign_numbers(text, language)
    text = _DASH.sub(", ", text)
    text = "".join(c if _is_read(c, language) else _replacement(c) for c in text)
    text = _SPACE_BEFORE.sub("", re.sub(r"[ \t]+", " ", text))
    return _LOST_COMMA.sub("", _REPEATED.sub(_once, text))


def _is_read(char: str, language: str) -> bool:
    if char in _KEPT or char.isalpha() or unicodedata.category(char)[0] == "M":
        return True
    return language != "en" and (char.isdigit() or ord(char) >= 0x0300)


def _replacement(char: str) -> str:
    return "-" if char == "–" else " "


def _once(match: re.Match[str]) -> str:
    if match[0][0] == ".":
        return "..." if len(match[0]) > 2 else "."
    return match[0][0]
