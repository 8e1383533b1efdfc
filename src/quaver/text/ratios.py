"""Fractions as English words."""

from __future__ import annotations

import re

from quaver.text.numerals import cardinal, number, ordinal

FRACTIONS = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
    "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8",
    "⅞": "7/8", "⅐": "1/7", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip


def _fraction(top: int, bottom: int) -> str:
    if bottom == 1 or bottom > 100:
        return f"{cardinal(str(top))} over {cardinal(str(bottom))}"
    name = {2: "half", 4: "quarter"}.get(bottom, ordinal(bottom))
    if top != 1:
        name = "halves" if bottom == 2 else f"{name}s"
    return f"{cardinal(str(top))} {name}"


def vulgar(m: re.Match[str]) -> str:
    top, bottom = map(int, FRACTIONS[m[2]].split("/"))
    spoken = _fraction(top, bottom)
    if not m[1]:
        return spoken
    article = "a " + spoken.split(" ", 1)[1] if top == 1 else spoken
    return f"{number(m[1])} and {article}"


def mixed(m: re.Match[str]) -> str:
    spoken = _fraction(int(m[2]), int(m[3]))
    article = "a " + spoken.split(" ", 1)[1] if m[2] == "1" else spoken
    return f"{number(m[1])} and {article}" if int(m[2]) < int(m[3]) else m[0]


def divided(m: re.Match[str]) -> str:
    top, bottom = int(m[1]), int(m[2])
    if (top, bottom) in ((24, 7), (9, 11)) or (top == bottom == 50):
        return f"{cardinal(m[1])} {cardinal(m[2])}"
    if bottom in (10, 100) and top > 1:
        return f"{cardinal(m[1])} out of {cardinal(m[2])}"
    if 0 < top < bottom and (bottom <= 16 or bottom in (20, 32, 64, 100)):
        return _fraction(top, bottom)
    return f"{cardinal(m[1])} over {cardinal(m[2])}"
