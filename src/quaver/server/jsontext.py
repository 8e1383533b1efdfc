"""JSON as strangers send it: read within limits, with half characters where they were cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

HIGH = range(0xD800, 0xDC00)  # surrogates that begin a pair
MOST_DIGITS = 40  # of a whole number; one that has more is read as a float


class JsonError(ValueError):
    """What is wrong with a text that is no JSON object."""


def read_object(data: bytes | str) -> dict[str, Any]:
    """The JSON object that `data` holds, in UTF-8. JsonError for anything else.

    A lone surrogate such as `\\ud83d` stays in its string: see `without_surrogates`.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_number, parse_int=_whole
        )
    except UnicodeDecodeError as error:
        raise JsonError(f"the body is not UTF-8 (at byte {error.start})") from None
    except RecursionError:
        raise JsonError("the body is nested too deeply; a request has two levels") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise JsonError("the body must be a JSON object")
    return value


def without_surrogates(text: str) -> str:
    """Join the surrogates that are pairs, and leave out those that are alone."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


class SurrogateJoiner:
    """Joins characters whose halves come at the end of one piece and the start of the next."""

    def __init__(self) -> None:
        self._high = ""

    def push(self, text: str) -> str:
        """Text without surrogates. Half a character at its end waits for the next piece."""
        text = self._high + text
        self._high = text[-1] if text and ord(text[-1]) in HIGH else ""
        return without_surrogates(text.removesuffix(self._high))


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise JsonError(f"the body has {name[:64]!r} twice; give it once")
        found[name] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise JsonError(f"the body is not JSON: {name} is no number there")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)
