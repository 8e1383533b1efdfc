"""Text as people and language models write it, to the segments that a model reads.

This is the one way from a text to a model's prompts: normalize the whole text once, cut it into
segments, leave out of each what the model cannot read, and skip what has nothing left to speak.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, cast

from quaver.core.errors import InputError, SilentTextError, UnreadableTextError
from quaver.text.normalization import MODES, Mode, normalize
from quaver.text.segments import Segment, iter_segments, tidy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quaver.core.protocols import TextFamily

AUTO = "auto"
NAMED = 8  # different characters that a message or a report names
SHOWN = 40  # characters of a text that a message repeats
_SURROGATES = re.compile("[\ud800-\udfff]")
# Symbols from here on are pictures. Those before are read as words: degrees, copyright.
_FIRST_PICTURE = "\u2190"
_SHAPES = ("\u2500", "\u25ff")  # lines and bullets: marks of a layout, not of a sentence
_PICTURES = ("So", "Co", "Cn", "Cs")  # Unicode's categories
_SIGNS = ("Sm", "Sc")  # of mathematics and money
_CONTEXT = "Word {0} word, 5 {0} 5, {0}5, 5{0}."


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was left out of a text because the model cannot read it."""

    count: int = 0  # characters; an emotion tag is one
    names: tuple[str, ...] = ()  # of the first `NAMED` different ones, by code point and name

    @classmethod
    def of(cls, characters: Iterable[str]) -> LeftOut:
        found = tuple(characters)
        different = list(dict.fromkeys(found))
        names = [describe(each) for each in different[:NAMED]]
        return cls(len(found), tuple(names))

    def __add__(self, other: LeftOut) -> LeftOut:
        names = dict.fromkeys((*self.names, *other.names))
        return LeftOut(self.count + other.count, tuple(names)[:NAMED])

    @property
    def listed(self) -> str:
        """The names in a line."""
        more = len(self.names) == NAMED and self.count > NAMED
        return ", ".join(self.names) + (", ..." if more else "")

    @property
    def sentence(self) -> str:
        """What happened, for a person."""
        number = "1 character" if self.count == 1 else f"{self.count} characters"
        return f"left out {number} that the model cannot read: {self.listed}"


@dataclass(frozen=True, slots=True)
class Reading:
    """Segments that a model can read, at least one, and what is not in them."""

    segments: tuple[Segment, ...]
    left_out: LeftOut

    @property
    def text(self) -> str:
        """All segments as one line."""
        return " ".join(segment.text for segment in self.segments)


def check_mode(mode: str) -> str:
    """Return `mode`. Raise InputError unless it is one of `MODES`."""
    if mode not in MODES:
        raise InputError(f"normalize is {mode!r}; allowed are {', '.join(MODES)}")
    return mode


def default_mode(family: TextFamily) -> Mode:
    """What `auto` means: full for a family that declares its alphabet, else light."""
    return "light" if family.alphabet is None else "full"


def read_text(
    text: str,
    family: TextFamily,
    voice: str | None = None,
    mode: str = AUTO,
    strict: bool = False,
) -> Reading:
    """Return the segments of `text` as `family` reads them, and what was left out.

    Raise InputError for an unknown mode or an empty text, UnreadableTextError if `strict` and
    something had to be left out, and SilentTextError if no letter or digit is left.
    """
    check_mode(mode)
    settled = default_mode(family) if mode == AUTO else cast("Mode", mode)
    language = family.language(voice)
    plain = normalize(_SURROGATES.sub("", text), settled, language)
    lost = _symbols_lost(text, plain, settled, language)
    segments = []
    for segment in iter_segments(plain, family.comfortable_chars):
        readable = family.readable(segment.text)
        lost.extend(readable.left_out)
        if has_words(readable.text):
            segments.append(replace(segment, text=readable.text))
    left_out = LeftOut.of(lost)
    if strict and left_out.count:
        raise UnreadableTextError(
            f"the model cannot read {left_out.listed}; remove what it cannot read, or leave out "
            "strict to have it skipped"
        )
    if not segments:
        raise _nothing_to_speak(text, left_out)
    segments[-1] = replace(segments[-1], pause=0.0)
    return Reading(tuple(segments), left_out)


def check_speakable(text: str, mode: str = AUTO) -> None:
    """Raise InputError for a text that no model could speak, whatever it is normalized to.

    For those who do not know the model yet; `read_text` decides when it is known.
    """
    check_mode(mode)
    modes: tuple[Mode, ...] = ("full", "light") if mode == AUTO else (cast("Mode", mode),)
    if not any(has_words(normalize(_SURROGATES.sub("", text), each)) for each in modes):
        raise _nothing_to_speak(text, LeftOut())


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit to speak."""
    return any(character.isalnum() for character in text)


def describe(character: str) -> str:
    """Return a character's code point and name, or an emotion tag as it is."""
    if len(character) > 1:
        return character
    return f"U+{ord(character):04X} ({unicodedata.name(character, _unnamed(character))})"


def _unnamed(character: str) -> str:
    category = unicodedata.category(character)
    return {"Cs": "half of a surrogate pair", "Co": "private use", "Cc": "control"}.get(
        category, "not assigned"
    )


def _nothing_to_speak(text: str, left_out: LeftOut) -> InputError:
    if not tidy(text) and not left_out.count:
        return InputError("the text is empty; give at least one word")
    if left_out.count:
        why = f"the model cannot read {left_out.listed}"
    else:
        why = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
    return SilentTextError(
        f"the text has no letter or digit to speak: {why}; give at least one word",
        left_out.count,
        left_out.names,
    )


def _symbols_lost(text: str, plain: str, mode: Mode, language: str) -> list[str]:
    """Return the emoji and other symbols of `text` that normalization left out, in order."""
    gone = {
        character
        for character in set(text) - set(plain)
        if _is_symbol(character) and not _is_read(character, mode, language)
    }
    return [character for character in text if character in gone] if gone else []


def _is_symbol(character: str) -> bool:
    """Whether this stands for something to say, rather than for how text is laid out."""
    category = unicodedata.category(character)
    if category in _SIGNS:
        return not character.isascii()
    if character < _FIRST_PICTURE or _SHAPES[0] <= character <= _SHAPES[1]:
        return False
    return category in _PICTURES


@cache
def _is_read(character: str, mode: Mode, language: str) -> bool:
    """Whether normalization makes anything of a symbol; of a sign beside words or numbers."""
    category = unicodedata.category(character)
    if category not in _SIGNS:
        return category == "So" and bool(normalize(character, mode, language).strip())
    with_it, without = (
        normalize(_CONTEXT.format(each), mode, language).split() for each in (character, " ")
    )
    return "".join(with_it) != "".join(without)
