"""A typed reader of JSON objects that strangers wrote: types, ranges and lengths, key by key.

Every value of a configuration goes through one of the methods below, so that nothing of another
type, not finite or out of range gets any further, and each refusal is one line that names the file,
the key, what was given and what is allowed.

`null` is a key's default, as if it were not there: transformers writes it for most of what is not
set. 8.0 is a whole number, as in JSON Schema, since JSON itself has one kind of number; `true` is
none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from quaver.core.errors import CheckpointError, printable

_SHOWN = 80  # characters of a value in a message
D = TypeVar("D")


class Required:
    """Stands for the default of a key that has none."""


REQUIRED = Required()


class Section:
    """One JSON object of `file`, at `path` in it ("" for the whole, "orpheus", ...)."""

    def __init__(self, values: Mapping[str, Any], file: str, path: str = "") -> None:
        self.values, self.file, self.path = values, file, path

    def has(self, key: str) -> bool:
        """Whether `key` has a value other than null."""
        return self.values.get(key) is not None

    def whole(
        self, key: str, low: int, high: int, default: D | Required = REQUIRED, *, even: bool = False
    ) -> int | D:
        """A whole number from `low` to `high`."""
        if not self.has(key):
            return self._default(key, default)
        value = self.values[key]
        allowed = f"{'even' if even else 'whole'} numbers from {low:,} to {high:,}"
        number = _whole(value)
        if number is None or not low <= number <= high or (even and number % 2):
            raise self.error(key, value, allowed)
        return number

    def number(
        self,
        key: str,
        low: float,
        high: float,
        default: D | Required = REQUIRED,
        *,
        above: bool = False,
    ) -> float | D:
        """A finite number from `low` (with `above`, above it) to `high`."""
        if not self.has(key):
            return self._default(key, default)
        value = self.values[key]
        allowed = f"numbers {'above' if above else 'from'} {low:g} to {high:g}"
        fits = _is_number(value) and low <= value <= high and not (above and value == low)
        if not fits:
            raise self.error(key, value, allowed)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """`true` or `false`."""
        if not self.has(key):
            return default
        value = self.values[key]
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def text(
        self, key: str, longest: int, default: D | Required = REQUIRED, *, shortest: int = 1
    ) -> str | D:
        """A string of `shortest` to `longest` characters without control characters."""
        if not self.has(key):
            return self._default(key, default)
        value = self.values[key]
        if not _is_text(value, shortest, longest):
            allowed = f"a string of {shortest} to {longest:,} printable characters"
            raise self.error(key, value, allowed)
        assert isinstance(value, str)
        return value

    def texts(
        self, key: str, longest: int, most: int, default: D | Required = REQUIRED
    ) -> tuple[str, ...] | D:
        """A list of at most `most` different strings, each as for `text`."""
        if not self.has(key):
            return self._default(key, default)
        value = self.values[key]
        fits = isinstance(value, list) and len(value) <= most
        if not fits or not all(_is_text(each, 1, longest) for each in value):
            allowed = (
                f'a list of at most {most:,} strings of 1 to {longest} characters, as ["a", "b"]'
            )
            raise self.error(key, value, allowed)
        if len(set(value)) < len(value):
            raise self.error(key, value, "a list that has each string once")
        return tuple(value)

    def wholes(
        self, key: str, low: int, high: int, most: int, *, even: bool = False
    ) -> tuple[int, ...]:
        """A list of 1 to `most` whole numbers, each from `low` to `high`."""
        if not self.has(key):
            raise self.missing(key)
        value = self.values[key]
        numbers = [_whole(each) for each in value] if isinstance(value, list) else []
        fits = 1 <= len(numbers) <= most
        if not fits or not all(n is not None and low <= n <= high for n in numbers):
            allowed = f"a list of 1 to {most} whole numbers from {low:,} to {high:,}"
            raise self.error(key, value, allowed)
        found = tuple(number for number in numbers if number is not None)
        if even and any(number % 2 for number in found):
            raise self.error(key, value, "even numbers (odd rates are not supported)")
        return found

    def section(self, key: str) -> Section:
        """The object at `key`; an empty one where there is none."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.error(key, value, "an object {...}")
        return Section(value, self.file, self.name(key))

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that are not `known`."""
        allowed = sorted(known)
        if unknown := sorted(set(self.values) - set(allowed)):
            raise CheckpointError(
                f"{self._where}: unknown keys {_list(unknown)}; allowed are {_list(allowed)}"
            )

    def name(self, key: str) -> str:
        """The key with the sections that it is in: "orpheus.voices"."""
        return f"{self.path}.{key}" if self.path else key

    def missing(self, key: str) -> CheckpointError:
        return CheckpointError(f"{self._where} lacks the key '{key}'; download the file again")

    def error(self, key: str, given: object, allowed: str) -> CheckpointError:
        """What is wrong with the value of `key`, in one line."""
        return CheckpointError(
            f"{self.file} has {self.name(key)} {shown(given)}; allowed: {allowed}"
        )

    @property
    def _where(self) -> str:
        return f"{self.file}, section {self.path}" if self.path else self.file

    def _default(self, key: str, default: D | Required) -> D:
        if isinstance(default, Required):
            raise self.missing(key)
        return default


def shown(value: object, longest: int = _SHOWN) -> str:
    """A value of a JSON file, fit for a message: as it is written there, and shortened."""
    if isinstance(value, str):
        return repr(printable(value, longest)).replace("\\\\", "\\")  # escaped once
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of {value.bit_length() * 30103 // 100000 + 1} digits"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    if isinstance(value, list | tuple):
        if len(value) > 8 or any(isinstance(each, Mapping | list | tuple) for each in value):
            return f"a list of {len(value)} items"
        return printable(f"[{', '.join(shown(each, 30) for each in value)}]", longest)
    return "null" if value is None else printable(str(value), longest)


def _list(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return str([printable(name, _SHOWN) for name in names[:20]]) + rest


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _whole(value: object) -> int | None:
    if not _is_number(value):
        return None
    assert isinstance(value, int | float)
    return int(value) if value == int(value) else None


def _is_text(value: object, shortest: int, longest: int) -> bool:
    return (
        isinstance(value, str)
        and shortest <= len(value) <= longest
        and printable(value, max(1, len(value))) == " ".join(value.split())
        and not set("\n\r\t\v\f") & set(value)
    )
