"""English numbers as words, and the one normalisation that both sides of a word comparison get.

A recogniser writes 'forty two' where a text says '42', and 'mister' where it says 'Mr.'. Both are
brought to one spelling, so that only misheard words count as errors.
"""

from __future__ import annotations

import re

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = (
    *("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty"),
    "ninety",
)
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_SPELLINGS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "st": "saint",
    "vs": "versus",
    "ok": "okay",
    "o'clock": "oclock",
    "cannot": "can't",
}
_CURRENCY = {"$": "dollars", "£": "pounds", "€": "euros"}
_MONEY = re.compile(r"([$£€])(\d[\d,]*)(?:\.(\d\d))?")
_CLOCK = re.compile(r"\b(\d{1,2}):(\d\d)\b")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
_DECIMAL = re.compile(r"\b(\d+)\.(\d+)\b")
_NUMBER = re.compile(r"\d+")
_TAG = re.compile(r"<[a-z]+>")  # a sound to make, such as <laugh>
_NOT_WORD = re.compile(r"[^a-z' ]+")


def number_words(value: int, tens_joiner: str = " ") -> str:
    """`value` from 0 to 999,999,999 in English words, without 'and'.

    Raises ValueError outside of that range.
    """
    if not 0 <= value < 1_000_000_000:
        raise ValueError(f"{value} is outside of 0 to 999,999,999")
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            head, rest = divmod(value, size)
            tail = f" {number_words(rest, tens_joiner)}" if rest else ""
            return f"{number_words(head, tens_joiner)} {name}{tail}"
    if value < 20:
        return _ONES[value]
    tens, ones = divmod(value, 10)
    return _TENS[tens] + (tens_joiner + _ONES[ones] if ones else "")


def ordinal_words(value: int) -> str:
    """`value` from 0 to 999,999,999 as an English ordinal, such as 'twenty first'."""
    *head, last = number_words(value).split()
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    else:
        last = last.removesuffix("y") + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*head, last])


def year_words(value: int) -> str:
    """`value` from 1000 to 9999 as a year is read, such as 'nineteen eighty four'."""
    century, rest = divmod(value, 100)
    if century % 10 == 0 and rest < 10:
        return number_words(value)
    tail = "hundred" if rest == 0 else f"oh {_ONES[rest]}" if rest < 10 else number_words(rest)
    return f"{number_words(century)} {tail}"


def normalise(text: str) -> str:
    """`text` as lower-case words parted by single spaces, with numbers spelled out.

    Contractions keep their apostrophe; all other punctuation and <tags> go. Numbers of four digits
    that look like years (1100 to 1999, no comma) are read as years; longer than nine digits, digit
    by digit. Applying it twice changes nothing.
    """
    text = text.lower().replace("\u2019", "'").replace("&", " and ").replace("%", " percent ")
    text = _MONEY.sub(_money, _TAG.sub(" ", text))
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", _CLOCK.sub(_clock, _mark_years(text)))
    text = _ORDINAL.sub(lambda m: f" {_read(m[1], ordinal=True)} ", text)
    text = _DECIMAL.sub(lambda m: f" {_read(m[1])} point {_one_by_one(m[2])} ", text)
    text = _NUMBER.sub(lambda m: f" {_read(m[0])} ", text)
    words = (word.strip("'") for word in _NOT_WORD.sub(" ", text).split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word)


def _mark_years(text: str) -> str:
    return re.sub(
        r"(?<![\d,.$:])1[1-9]\d\d(?![\d:]|[,.]\d|st|nd|rd|th)",
        lambda m: year_words(int(m[0])),
        text,
    )


def _money(match: re.Match[str]) -> str:
    unit = _CURRENCY[match[1]]
    whole = match[2].rstrip(",").replace(",", "")
    cents = f" {_read(match[3])}" if match[3] and int(match[3]) else ""
    comma = "," if match[2].endswith(",") else ""
    return f"{_read(whole)} {unit}{cents}{comma}"


def _clock(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    if minute == 0:
        return f"{number_words(hour)} oclock"
    return f"{number_words(hour)} {'oh ' if minute < 10 else ''}{number_words(minute)}"


def _read(digits: str, ordinal: bool = False) -> str:
    if len(digits) > 9:
        return _one_by_one(digits)
    return ordinal_words(int(digits)) if ordinal else number_words(int(digits))


def _one_by_one(digits: str) -> str:
    return " ".join(_ONES[int(digit)] for digit in digits)
