"""Text that arrives in pieces, cut into sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quaver.text.segments import sentences

if TYPE_CHECKING:
    from quaver.text.normalization import Mode


class SentenceFeed:
    """Text that comes in pieces, cut into sentences as they come.

    A sentence is whole when the next has begun: only then is a full stop surely its end.
    """

    def __init__(self, max_chars: int, mode: Mode = "off") -> None:
        """`max_chars` as for `iter_segments`; a longer sentence is cut."""
        self._mode = mode
        self._max_chars = max_chars
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """The sentences that are whole now."""
        self._rest += text
        *whole, last = sentences(self._rest, self._max_chars) or [""]
        if whole:
            end = self._rest.rstrip()
            self._rest = last + self._rest[len(end) :]
        return whole

    def finish(self) -> list[str]:
        """The rest; then it starts anew."""
        rest, self._rest = self._rest, ""
        return sentences(rest, self._max_chars)
