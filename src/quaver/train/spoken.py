"""Numbers, dates, prices and spelled letters, in digits and in words, for the training texts.

Digits and words for the same thing both occur, because users write both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from quaver.quality.words import number_words, ordinal_words, year_words

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_ACRONYMS = (
    *("GPU", "CPU", "FP8", "FP16", "INT8", "INT4", "API", "USB", "DVD", "CEO", "TV"),
    *("PC", "AI", "URL", "HTML", "FAQ", "DIY", "BBC", "CNN", "FBI", "UFO", "VIP"),
    *("ATM", "PDF", "MP3", "WAV", "HTTP", "SQL", "LED", "GPS", "RAM", "SSD", "UK"),
    *("EU", "U.S.", "U.S.A.", "Ph.D."),
)


def ordinal_digits(value: int) -> str:
    """`value` as digits with its ending, such as '21st'."""
    if value % 100 in (11, 12, 13):
        return f"{value}th"
    return f"{value}{({1: 'st', 2: 'nd', 3: 'rd'}).get(value % 10, 'th')}"


def _either(rng: random.Random, value: int, digits: float = 0.45) -> str:
    """Digits with chance `digits`, otherwise words, a few of them hyphenated."""
    if rng.random() < digits:
        return str(value)
    return number_words(value, "-" if rng.random() < 0.4 else " ")


def small(rng: random.Random) -> str:
    """2 to 29, smaller ones more often."""
    return _either(rng, 2 + int(28 * rng.random() ** 2), digits=0.35)


def medium(rng: random.Random) -> str:
    """10 to 999, two digits more often."""
    return _either(rng, rng.randrange(10, 100 if rng.random() < 0.6 else 1000))


def big(rng: random.Random) -> str:
    """A thousand to 999 million, as '45,000', '45000' or in words."""
    value = rng.randrange(1, 1000) * rng.choice((1000, 1000, 1_000_000))
    if rng.random() < 0.3:
        return number_words(value)
    if value >= 1_000_000:
        return f"{value // 1_000_000} million"
    value += rng.choice((0, 0, rng.randrange(1000)))
    return f"{value:,}" if rng.random() < 0.7 else str(value)


def year(rng: random.Random) -> str:
    """1700 to 2039; before 2000 also as 'nineteen eighty four'."""
    value = rng.randrange(1700, 2040) if rng.random() < 0.4 else rng.randrange(1950, 2030)
    if rng.random() < 0.6:
        return str(value)
    return year_words(value)


def clock(rng: random.Random) -> str:
    """A time of day, such as '5:30', 'five thirty', 'half past five', '7 p.m.'."""
    hour, minute = rng.randrange(1, 13), rng.randrange(5, 60, 5)
    kind = rng.random()
    if kind < 0.3:
        return f"{hour}:{minute if rng.random() < 0.7 else rng.randrange(10, 60):02d}"
    if kind < 0.4:
        return f"{hour} {rng.choice(('a.m.', 'p.m.', 'in the morning', 'in the evening'))}"
    if kind < 0.5:
        return f"{hour} o'clock"
    word = number_words(hour)
    if kind < 0.7:
        return f"{word} {rng.choice(('fifteen', 'thirty', 'forty five', 'twenty', 'ten'))}"
    if kind < 0.85:
        return f"{rng.choice(('half past', 'quarter past', 'quarter to', 'ten to'))} {word}"
    return f"{word} o'clock"


def price(rng: random.Random) -> str:
    """An amount of money, such as '$4.99', '$12', 'thirty dollars', '65 cents'."""
    kind, value = rng.random(), rng.randrange(1, 100 if rng.random() < 0.7 else 1000)
    if kind < 0.25:
        return f"${value}.{rng.choice((99, 50, 25, 75, rng.randrange(10, 100)))}"
    if kind < 0.4:
        return f"${value}"
    unit = rng.choice(("dollars", "dollars", "euros", "pounds", "cents"))
    return f"{_either(rng, value + 1, digits=0.3)} {unit}"


def ordinal(rng: random.Random) -> str:
    """1st to 31st, in words more often than in digits."""
    value = 1 + int(31 * rng.random() ** 2)
    return ordinal_words(value) if rng.random() < 0.65 else ordinal_digits(value)


def date(rng: random.Random) -> str:
    """A calendar date, such as 'March 3rd', 'the fifth of May', 'May 5, 1998'."""
    month, day = rng.choice(_MONTHS), rng.randrange(1, 29)
    kind = rng.random()
    if kind < 0.25:
        return f"the {ordinal_words(day)} of {month}"
    if kind < 0.5:
        return f"{month} {ordinal_words(day)}"
    if kind < 0.7:
        return f"{month} {ordinal_digits(day)}"
    return f"{month} {day}" if kind < 0.85 else f"{month} {day}, {year(rng)}"


def decimal(rng: random.Random) -> str:
    """One or two decimals, such as '3.5', 'two point five'."""
    whole, part = rng.randrange(0, 40), rng.randrange(1, 10)
    if rng.random() < 0.5:
        return f"{whole}.{part}"
    return f"{number_words(whole)} point {number_words(part)}"


def digits(rng: random.Random) -> str:
    """3 to 6 single digits, together, apart, or in words."""
    values = [rng.randrange(10) for _ in range(rng.randrange(3, 7))]
    if rng.random() < 0.5:
        return " ".join(number_words(v) for v in values)
    return rng.choice((" ", ", ", "-")).join(map(str, values))


def phone(rng: random.Random) -> str:
    """A telephone number of the fictional range 555-01xx, in digits or in words."""
    values = [5, 5, 5, 0, 1, rng.randrange(10), rng.randrange(10)]
    if rng.random() < 0.4:
        return "".join(map(str, values[:3])) + "-" + "".join(map(str, values[3:]))
    spoken = ["oh" if v == 0 and rng.random() < 0.5 else number_words(v) for v in values]
    return f"{' '.join(spoken[:3])}, {' '.join(spoken[3:])}"


def letters(rng: random.Random) -> str:
    """An acronym, or 2 to 4 letters spelled apart."""
    if rng.random() < 0.5:
        return rng.choice(_ACRONYMS)
    chosen = [chr(65 + rng.randrange(26)) for _ in range(rng.randrange(2, 5))]
    return rng.choice((" ", ", ", "-", "")).join(chosen)


NUMBER_SLOTS: Mapping[str, Callable[[random.Random], str]] = {
    "n_small": small,
    "n_mid": medium,
    "n_big": big,
    "year": year,
    "time": clock,
    "price": price,
    "ordinal": ordinal,
    "date": date,
    "decimal": decimal,
    "digits": digits,
    "phone": phone,
    "letters": letters,
}
"""Slots of the grammar that are computed: each draws one text from the generator it is given."""
