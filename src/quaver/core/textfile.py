"""Text files that people give: UTF-8, of bounded size, and TOML. What else they are is said."""

from __future__ import annotations

import codecs
import os
import tomllib
from pathlib import Path
from typing import Any

from quaver.core.errors import ConfigError, InputError

MAX_TOML_BYTES = 2**20
# UTF-32 first: its little-endian mark begins with UTF-16's
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decode_text(data: bytes, where: str) -> str:
    """UTF-8, with or without a mark, as text; `where` begins the message ("notes.txt").

    Raises InputError for other encodings, named where they can be told, and for NUL bytes.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise InputError(f"{where} is text in {name}, not in UTF-8; {_convert(name)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = _guess(data)
        advice = _convert(guess) if guess else "convert it first"
        raise InputError(
            f"{where} is not text in UTF-8 (at byte {error.start}); {advice}"
        ) from error
    if "\0" in text:
        guess = _guess(data)
        kind = f"it looks like {guess}; {_convert(guess)}" if guess else "give a text, not a binary"
        raise InputError(f"{where} is not text: it has a NUL at byte {data.index(0)}; {kind}")
    return text


def argument_text(value: str, name: str) -> str:
    """The text of a command-line argument, `name` in messages. Raises InputError if not UTF-8.

    Python hands bytes on that the locale's encoding does not know as lone surrogates.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return decode_text(os.fsencode(value), name)
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError for what cannot be read or is not TOML."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOML_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)[:200]} ({error.strerror})") from None
    if len(data) > MAX_TOML_BYTES:
        raise ConfigError(f"{path} has more than {MAX_TOML_BYTES:,} bytes; is it the right file?")
    try:
        return tomllib.loads(decode_text(data, str(path)))
    except InputError as error:
        raise ConfigError(str(error)) from None
    except RecursionError:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and whole numbers of thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _guess(data: bytes) -> str | None:
    """UTF-16 without a mark: Latin text has a zero in every second byte."""
    start = data[:4096]
    share = max(start[::2].count(0), start[1::2].count(0)) / max(1, len(start) // 2)
    return "UTF-16" if share > 0.4 and start.count(0) < 0.6 * len(start) else None


def _convert(encoding: str) -> str:
    return f"convert it, for example with: iconv -f {encoding} -t UTF-8"
