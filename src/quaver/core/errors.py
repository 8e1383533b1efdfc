"""Errors that a caller can cause and act on.

Every message says what was given, what is allowed and what to do, in one line. The command line
prints it and exits with status 2; anything else that escapes is a bug and keeps its traceback.

Messages quote names and values from files of strangers. They are made printable where they are
made, so that no control character reaches a terminal, a log or a client, whatever shows them.
"""

from __future__ import annotations

import unicodedata

MAX_MESSAGE = 4000  # characters
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u2028\u2029")


def printable(text: str, longest: int = MAX_MESSAGE) -> str:
    """Return `text` in one line, control characters as escapes, at most `longest` characters.

    Escaped are what moves a terminal's cursor or turns the reading direction (Unicode category Cc,
    bidirectional marks) and lone surrogates, which cannot be encoded.
    """
    text = text[: 2 * longest + 2]
    shown = "".join(_escaped(c) if _is_harmful(c) else c for c in " ".join(text.split()))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _is_harmful(char: str) -> bool:
    if char.isascii():
        return not char.isprintable()
    if unicodedata.category(char) in ("Cc", "Cs"):
        return True
    return char in _DIRECTIONS or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


class QuaverError(Exception):
    """Base of all errors that are the caller's to mend."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class InputError(QuaverError):
    """A request is unusable: its text, voice, sampling parameters or reference audio."""


class SilentTextError(InputError):
    """A text has no letter or digit that the model can speak."""

    def __init__(self, message: str, left_out: int = 0, names: tuple[str, ...] = ()) -> None:
        """left_out: how many characters the model cannot read. names: the first of them."""
        super().__init__(message)
        self.left_out, self.names = left_out, names


class UnreadableTextError(InputError):
    """A text has characters that the model cannot read, and was to be read strictly."""


class CheckpointError(QuaverError):
    """A model folder or file is missing, damaged, or of a layout that is not supported."""


class ConfigError(QuaverError):
    """A configuration has unknown keys or values that do not fit together."""


class UnsupportedError(QuaverError):
    """The request is well formed, but this device or installation cannot do it."""
