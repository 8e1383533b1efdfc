"""Names of voices that a user gives for a checkpoint: `elise,tom`, or a sequence of them."""

from __future__ import annotations

from collections.abc import Sequence

from quaver.core.errors import InputError, printable

MAX_VOICES = 1000
MAX_VOICE = 80  # characters of a name


def read_voices(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The names in `given`, a string of them with commas or a sequence; None if nothing is given.

    Raises InputError for names that are empty, too long, given twice or not printable.
    """
    if given is None:
        return None
    names = given.split(",") if isinstance(given, str) else [str(each) for each in given]
    names = [name.strip() for name in names]
    bad = [n for n in names if not 1 <= len(n) <= MAX_VOICE or printable(n) != " ".join(n.split())]
    if bad or len(set(names)) < len(names) or not 1 <= len(names) <= MAX_VOICES:
        raise InputError(
            f"the voices are {printable(','.join(names), 80)!r}; give 1 to {MAX_VOICES} different "
            f"names of 1 to {MAX_VOICE} characters, with commas between them, such as elise,tom"
        )
    return tuple(names)
