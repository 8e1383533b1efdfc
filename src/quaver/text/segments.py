"""Cut text into segments that a model can speak in one breath, losing nothing.

Models are trained on utterances of some seconds; longer text makes them drift, loop or stop early.
So text is cut where a reader would pause: between paragraphs, then sentences, then clauses, then
words. Sentences of one paragraph are packed together, as a model gives a better melody to a few
sentences than to one.

A stop that is not surely the end of a sentence ("Mr.", "U.S.A.", "3.14", "well...") is not taken
for one. Missing an end costs nothing, since the next sure end or a clause mark will do; a false
one is heard as a stumble.

Every pass is linear in the text, and `iter_segments` looks ahead one segment only.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quaver.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

PARAGRAPH_PAUSE = 0.6  # seconds
SENTENCE_PAUSE = 0.35
CLAUSE_PAUSE = 0.15
CUT_PAUSE = 0.05  # between words, or within one

MIN_CHARS = 40  # the longest emotion tag fits

TAG = r"<[^\W\d_][\w -]{0,30}>"  # <laugh>, <clear throat>
_CLOSING = "[\"'”’»›)\\]}」』】）》〉]*"
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ud800-\udfff]")
_SPACES = re.compile(r"\s+")
_STOP = re.compile(rf"(?P<latin>[.!?…]+){_CLOSING}|[。！？｡．।॥؟۔]+{_CLOSING}")
_LAST_WORD = re.compile(r"[^\s\"'“‘«(\[{]*$")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # J, e.g, U.S.A
_TITLE = re.compile(
    r"(?:mr|mrs|ms|mx|dr|prof|rev|hon|st|mt|ft|gen|col|capt|cpt|lt|sgt|maj|cmdr|adm|gov|sen|rep"
    r"|pres|supt|messrs|mme|mlle|hr|fr|sr|sra|srta|dra|vs|cf|viz|approx|bzw|ca)",
    re.IGNORECASE,
)
_BEFORE_NUMBER = re.compile(
    r"(?:nos?|nr|figs?|vol|ch|sec|pp|pt|art|eq"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    rf"{TAG}|(?P<end>(?:[,;:…–]|\.\.\.){_CLOSING}(?=\s)|[—、，；：]+{_CLOSING}|\n"
    r"|(?=\s(?:and|or|but|nor|so|yet|because|which|while|when|where|although|though|if|unless"
    r"|until|und|oder|aber|et|ou|mais|y|o|pero)\s))"
)
_SPACE = re.compile(rf"{TAG}|(?P<end>(?=\s))")


@dataclass(frozen=True, slots=True)
class Segment:
    """Text without outer space or newlines, never empty, and the seconds of silence after it."""

    text: str
    pause: float


def split_text(text: str, max_chars: int) -> list[Segment]:
    """`iter_segments` as a list."""
    return list(iter_segments(text, max_chars))


def iter_segments(text: str, max_chars: int) -> Iterator[Segment]:
    """Segments of at most `max_chars` characters, in order; none for text without characters.

    Joined, they have the characters of `tidy(text)`, spaces aside. The last pause is 0.
    Raises InputError for `max_chars` below 40, which could not hold every emotion tag.
    """
    if max_chars < MIN_CHARS:
        raise InputError(f"max_chars is {max_chars}; allowed is {MIN_CHARS} or more")
    previous: Segment | None = None
    for paragraph in tidy(text).split("\n\n"):
        for segment in _pack(paragraph, max_chars):
            if previous is not None:
                yield previous
            previous = segment
    if previous is not None:
        yield replace(previous, pause=0.0)


def sentences(text: str, max_chars: int) -> list[str]:
    """Sentences of `text`, each of at most `max_chars` characters."""
    found = []
    for paragraph in tidy(text).split("\n\n"):
        start = 0
        for end, _ in _pieces(paragraph, max_chars):
            found.append(_plain(paragraph[start:end]))
            start = _skip_space(paragraph, end)
    return found


def tidy(text: str) -> str:
    """NFC text without invisible characters, with a space, a newline or a blank line between words.

    Control characters, lone surrogates and zero-width spaces go; joiners that shape letters stay.
    """
    lines = "\n".join(text.replace("\u2029", "\n\n").splitlines())
    visible = unicodedata.normalize("NFC", _INVISIBLE.sub("", lines))
    return _SPACES.sub(_one_space, visible).strip()


def _one_space(spaces: re.Match[str]) -> str:
    return ("\n" * spaces[0].count("\n"))[:2] or " "


def _pack(paragraph: str, max_chars: int) -> Iterator[Segment]:
    """Join neighbouring pieces while they fit. Offsets only: the text is sliced once."""
    start = end = 0
    pause = 0.0
    for next_end, next_pause in _pieces(paragraph, max_chars):
        if end and next_end - start > max_chars:
            yield Segment(_plain(paragraph[start:end]), pause)
            start = _skip_space(paragraph, end)
        end, pause = next_end, next_pause
    if end > start:
        yield Segment(_plain(paragraph[start:end]), PARAGRAPH_PAUSE)


def _plain(piece: str) -> str:
    return piece.strip().replace("\n", " ")


def _skip_space(text: str, at: int) -> int:
    return at + 1 if text[at : at + 1].isspace() else at


def _pieces(paragraph: str, max_chars: int) -> Iterator[tuple[int, float]]:
    """(end, pause) of each sentence, and of each part of a sentence that is too long."""
    start = 0
    for sentence_end in _sentence_ends(paragraph):
        while sentence_end - start > max_chars:
            cut, pause = _cut(paragraph, start, start + max_chars)
            yield cut, pause
            start = _skip_space(paragraph, cut)
        yield sentence_end, SENTENCE_PAUSE
        start = _skip_space(paragraph, sentence_end)


def _sentence_ends(paragraph: str) -> Iterator[int]:
    start = 0
    for stop in _STOP.finditer(paragraph):
        if stop.end() < len(paragraph) and _ends_sentence(paragraph, start, stop):
            yield stop.end()
            start = _skip_space(paragraph, stop.end())
    if start < len(paragraph):
        yield len(paragraph)


def _ends_sentence(paragraph: str, start: int, stop: re.Match[str]) -> bool:
    mark, after = stop["latin"], paragraph[stop.end() : stop.end() + 2]
    if mark is None:
        return not after[0].isdigit()
    if not after[0].isspace() or after[1:].islower():
        return False
    if mark != ".":
        return "!" in mark or "?" in mark  # an ellipsis may go on
    before = paragraph[max(start, stop.start() - 32) : stop.start()]
    return not _is_abbreviated(before, after[1:])


def _is_abbreviated(before: str, after: str) -> bool:
    """Whether a full stop belongs to the word before it, in a sentence that goes on."""
    found = _LAST_WORD.search(before)
    assert found is not None  # it matches an empty word too
    word = found[0]
    if word.isdigit():  # "1. Peel the apples." but "It was 1999."
        return not before[: found.start()].strip()
    if _BEFORE_NUMBER.fullmatch(word):
        return after.isdigit()
    return bool(_TITLE.fullmatch(word) or _DOTTED.fullmatch(word))


def _cut(text: str, start: int, limit: int) -> tuple[int, float]:
    """Where to end a piece of text[start:] that is too long, at `limit` at the latest."""
    third = start + (limit - start) // 3  # a piece of two words is worse than a missed comma
    if (cut := _last_end(_CLAUSE_END, text, start, limit)) > third:
        return cut, CLAUSE_PAUSE
    if (cut := _last_end(_SPACE, text, start, limit)) > start:
        return cut, CUT_PAUSE
    return _within_word(text, start, limit), CUT_PAUSE


def _last_end(pattern: re.Pattern[str], text: str, start: int, limit: int) -> int:
    # One more character and the tag it may begin are in sight, so that neither is cut.
    ends = (
        match.end("end")
        for match in pattern.finditer(text, start, limit + MIN_CHARS)
        if match["end"] is not None and match.end("end") <= limit
    )
    return max(ends, default=start)


def _within_word(text: str, start: int, limit: int) -> int:
    """`limit`, or the start of the tag or of the accented letter that it would split."""
    tag = text.rfind("<", max(start, limit - MIN_CHARS), limit)
    match = re.compile(TAG).match(text, tag) if tag > start else None
    if match and match.end() > limit:
        return tag
    cut = limit
    while cut > limit - MIN_CHARS // 2 and unicodedata.combining(text[cut]):
        cut -= 1
    return cut
