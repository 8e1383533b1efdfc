"""Blocks of Markdown, taken out of text line by line while it arrives.

Chat models write CommonMark, but not faithfully: fences stay open, tables lack their second line,
and a mark may open in one sentence and close in the next. So this is no full parser. It knows only
what the beginning of a line can be, needs one pass, and leaves lines of plain prose as they are.
"""

from __future__ import annotations

import re

_LOOKAHEAD = 400  # characters of a line that tell what it is
_STOP = re.compile(r"[.!?…](?=\s)|[。！？।]")
_MARKER = re.compile(
    r"\s*(?:(?P<quote>>(?![\d=]))"
    r"|(?P<heading>#{1,6})(?=\s|$)"
    r"|(?P<item>[-*+•‣⁃◦▪▫●○■□◆◇►▶➢➤☐☑☒–—])(?=\s|$)(?:\s+\[[ xX]?\](?=\s|$))?"
    r"|(?P<number>\d{1,3})[.)](?=\s)"
    r"|\[\^[^\]\s]{1,40}\]:(?=\s))\s*"  # a footnote's text
)
_REFERENCE = re.compile(r"\[[^\]\n]{1,200}\]:\s*<?(?:https?:|www\.|mailto:|/|#)")
_FENCE = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_TABLE_LINE = frozenset("|:-+ \t")
_BOLD_LINE = re.compile(r"(?:\*\*[^*]+\*\*|__[^_]+__)\s*")
_CLOSING_HASHES = re.compile(r"\s#+\s*$")
_ENDS = frozenset(".!?…:;,。！？；：，、।")
_THOUGHT = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff]")


class BlockReader:
    """Text in pieces, without the marks of its blocks and without the blocks that are not read.

    Fenced code, tables, rules, link definitions and <think> sections are left out. Marks of
    headings, quotes and bullets go; the number of a list item stays. Headings and items end with
    a full stop. What follows a fence that never closes belongs to it, as in CommonMark, and is
    left out. Pieces may be cut anywhere: together they give the same text.
    """

    def __init__(self, gap: str = "\n") -> None:
        """`gap` separates list items, headings and left-out blocks from what is around them."""
        self._gap = gap
        self._reset()

    def _reset(self) -> None:
        """Forget all that came."""
        self._line = ""  # what has come of the current line
        self._flowing = False  # whether the line's beginning has been returned
        self._ends = False  # whether the line needs a full stop
        self._dropped = False
        self._fence = ""
        self._table = False
        self._thought = False
        self._last = False
        self._row: str | None = None  # it begins a table if the next line says so

    def push(self, text: str) -> str:
        """The text that is ready now."""
        *lines, last = text.replace("\r", " ").split("\n")
        ready = [self._add(line) + self._end_line() for line in lines]
        return "".join(ready) + self._add(last)

    def finish(self) -> str:
        """The rest; then the reader starts anew."""
        self._last = True
        rest = self._end_line() if self._line or self._flowing else ""
        rest += self._release_row()
        self._reset()
        return rest.removesuffix("\n")

    def _add(self, piece: str) -> str:
        if self._flowing:
            self._line += piece
            return "" if self._dropped else piece
        self._line += piece
        if self._fence:
            self._line = self._line[:_LOOKAHEAD]
            return ""
        if self._table or self._thought or not _is_prose(self._line):
            return ""
        return self._begin(self._line)

    def _end_line(self) -> str:
        line, flowing = self._line, self._flowing
        ready = self._end_prose() if flowing else self._read_line(line)
        self._line, self._flowing = "", False
        return ready

    def _read_line(self, line: str) -> str:
        """A line that had to be seen whole."""
        if self._thought:
            end = _THOUGHT_END.search(line)
            if end is None:
                return ""
            self._thought, line = False, line[end.end() :]
        bare = line.strip(" \t>")
        if self._fence:
            if len(bare) >= len(self._fence) and not bare.strip(self._fence[0]):
                self._fence = ""
            return ""
        if self._table and "|" in bare:
            return ""
        self._table = False
        if self._row is not None and _divides(bare):
            self._row, self._table = None, True
            return self._gap[1:]
        return self._release_row() + self._read_block(line, bare)

    def _read_block(self, line: str, bare: str) -> str:
        if thought := _THOUGHT.match(line):
            self._thought = True
            return self._gap[1:] + self._read_line(line[thought.end() :])
        if fence := _FENCE.match(_without_markers(line)):
            self._fence = fence[1] or fence[2]
            return self._gap[1:]
        if _is_rule(bare):
            return "\n"
        if "|" in line and _divides_or_row(line):
            self._row = line
            return ""
        return self._begin(line) + self._end_prose()

    def _release_row(self) -> str:
        row, self._row = self._row, None
        if row is None:
            return ""
        line, self._line = self._line, row
        ready = self._begin(row) + self._end_prose()
        self._line, self._flowing = line, False
        return ready

    def _begin(self, line: str) -> str:
        """What is said of a line's beginning, or of a whole line."""
        before = self._release_row() if self._row is not None and self._row is not line else ""
        self._line = line
        self._flowing, self._ends = True, False
        self._dropped = _REFERENCE.match(line.lstrip()) is not None
        if self._dropped:
            return before
        numbers, rest = "", line
        while found := _MARKER.match(rest):
            rest = rest[found.end() :]
            self._ends |= found["quote"] is None
            if found["number"]:
                numbers += f"{found['number']}. "
            if found["heading"]:
                rest = _CLOSING_HASHES.sub("", rest)
        return before + (self._gap[1:] if self._ends else "") + numbers + rest

    def _end_prose(self) -> str:
        if self._dropped:
            return ""
        if not self._ends and (self._last or not _BOLD_LINE.fullmatch(self._line.strip())):
            return "\n"
        return _full_stop(self._line) + self._gap


def read_blocks(text: str) -> str:
    """`text` as one piece through a BlockReader."""
    reader = BlockReader()
    return reader.push(text) + reader.finish()


def _is_prose(beginning: str) -> bool:
    """Whether a line that begins like this is surely to be read, however it goes on."""
    rest = _without_markers(beginning)
    if rest.startswith(("```", "~~~", "|")) or "#" in beginning[: len(beginning) - len(rest)]:
        return False
    if _THOUGHT.match(beginning):
        return False
    start = len(beginning) - len(rest)
    stop = _STOP.search(beginning, start, _LOOKAHEAD)
    if "|" in beginning[: stop.end() if stop else _LOOKAHEAD]:
        return False
    return stop is not None or len(beginning) > _LOOKAHEAD


def _divides_or_row(line: str) -> bool:
    return not _is_prose(line)


def _without_markers(line: str) -> str:
    while found := _MARKER.match(line):
        line = line[found.end() :]
    return line.lstrip()


def _divides(bare: str) -> bool:
    """Whether this is the line between a table's head and its rows."""
    return "-" in bare and "|" in bare and _TABLE_LINE.issuperset(bare)


def _is_rule(bare: str) -> bool:
    marks = bare.replace(" ", "").replace("\t", "")
    return len(marks) >= 3 and marks[0] in "-*_=" and not marks.strip(marks[0])


def _full_stop(line: str) -> str:
    """The stop that `line` lacks, if it has words."""
    for char in reversed(line):
        if char in _ENDS:
            return ""
        if char.isalnum():
            return "。" if _CJK.match(char) else "."
    return ""
