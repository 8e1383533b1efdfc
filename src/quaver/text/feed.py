"""Text that arrives in pieces, cut into sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quaver.text.blocks import BlockReader
from quaver.text.segments import sentences

if TYPE_CHECKING:
    from quaver.text.normalization import Mode


class SentenceFeed:
    """Text that comes in pieces, cut into sentences as they come.

    A sentence is whole when the next has begun: only then is a full stop surely its end. Unless
    the mode is `off`, blocks that are left out (fenced code, tables) never come out, and headings
    and list items are sentences. Of a fence that never closes nothing comes out, nor of what
    follows it; all that stands before it does. Sentences are otherwise raw: `normalize` each.
    """

    def __init__(self, max_chars: int, mode: Mode = "off") -> None:
        """`max_chars` as for `iter_segments`; a longer sentence is cut."""
        self._max_chars = max_chars
        self._blocks = None if mode == "off" else BlockReader(gap="\n\n")
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """The sentences that are whole now."""
        self._rest += text if self._blocks is None else self._blocks.push(text)
        *whole, last = sentences(self._rest, self._max_chars) or [""]
        if whole:
            end = self._rest.rstrip()
            self._rest = last + self._rest[len(end) :]
        return whole

    def finish(self) -> list[str]:
        """The rest; then it starts anew."""
        rest, self._rest = self._rest, ""
        if self._blocks is not None:
            rest += self._blocks.finish()
        return sentences(rest, self._max_chars)
