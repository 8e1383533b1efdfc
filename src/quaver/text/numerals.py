"""Numbers as words, in the languages whose numbers are known."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_LIBRARY = ("en", "fr", "de", "es", "it", "ko")
LANGUAGES = (*_LIBRARY, "hi", "zh")
MOST_DIGITS = 15  # longer ones are read digit by digit

_POINT = {"en": "point", "fr": "virgule", "de": "Komma", "es": "coma", "it": "virgola",
          "ko": "점", "hi": "दशमलव", "zh": "点"}  # fmt: skip
MINUS = {"en": "minus", "fr": "moins", "de": "minus", "es": "menos", "it": "meno",
         "ko": "마이너스", "hi": "माइनस", "zh": "负"}  # fmt: skip
_HINDI = (
    "शून्य एक दो तीन चार पाँच छह सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह सोलह सत्रह अठारह "
    "उन्नीस बीस इक्कीस बाईस तेईस चौबीस पच्चीस छब्बीस सत्ताईस अट्ठाईस उनतीस तीस इकतीस बत्तीस "
    "तैंतीस चौंतीस पैंतीस छत्तीस सैंतीस अड़तीस उनतालीस चालीस इकतालीस बयालीस तैंतालीस "
    "चौवालीस पैंतालीस छियालीस सैंतालीस अड़तालीस उनचास पचास इक्यावन बावन तिरेपन चौवन पचपन "
    "छप्पन सत्तावन अट्ठावन उनसठ साठ इकसठ बासठ तिरेसठ चौंसठ पैंसठ छियासठ सड़सठ अड़सठ उनहत्तर "
    "सत्तर इकहत्तर बहत्तर तिहत्तर चौहत्तर पचहत्तर छिहत्तर सतहत्तर अठहत्तर उन्यासी अस्सी "
    "इक्यासी बयासी तिरासी चौरासी पचासी छियासी सत्तासी अट्ठासी नवासी नब्बे इक्यानवे बानवे "
    "तिरानवे चौरानवे पचानवे छियानवे सत्तानवे अट्ठानवे निन्यानवे"
).split()
_HINDI_SIZES = ((10**7, "करोड़"), (10**5, "लाख"), (1000, "हज़ार"), (100, "सौ"))
_CHINESE = "零一二三四五六七八九"


def cardinal(digits: str, language: str = "en") -> str:
    """The whole number `digits` in words; digit by digit if it is long or begins with a zero."""
    if len(digits) > MOST_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return one_by_one(digits, language)
    return _cardinal(int(digits), language)


def decimal(whole: str, fraction: str, language: str = "en") -> str:
    """`whole` and `fraction`, digits both, with the language's decimal mark as a word."""
    if len(whole) > 1 and whole[0] == "0":
        whole = whole.lstrip("0") or "0"
    joint = "" if language == "zh" else " "
    parts = [cardinal(whole, language)] if whole else []
    return joint.join([*parts, _POINT[language], one_by_one(fraction, language)])


def one_by_one(digits: str, language: str = "en") -> str:
    """Each digit as a word."""
    return ("" if language == "zh" else " ").join(_cardinal(int(d), language) for d in digits)


def ordinal(value: int, language: str = "en") -> str:
    """`value` as an ordinal, for the languages of the library."""
    return _clean(_library(value, language, "ordinal"))


def year(value: int) -> str:
    """`value` as English reads years: nineteen ninety-nine, two thousand five, twenty ten."""
    century, rest = divmod(value, 100)
    if not 1000 < value < 2100 or value % 1000 < 10 or (value < 1100 and rest < 10):
        return _cardinal(value, "en")
    tail = "hundred" if rest == 0 else f"oh {_cardinal(rest, 'en')}"
    if rest >= 10:
        tail = _cardinal(rest, "en")
    return f"{_cardinal(century, 'en')} {tail}"


@lru_cache(maxsize=2048)
def _cardinal(value: int, language: str) -> str:
    if language == "hi":
        return _hindi(value)
    if language == "zh":
        return _chinese(value)
    return _clean(_library(value, language, "cardinal"))


def _library(value: int, language: str, kind: str) -> str:
    from num2words import num2words  # 0.1 s, which text without numbers does not need

    spoken: Any = num2words(value, lang=language, to=kind)
    return str(spoken)


def _clean(words: str) -> str:
    return words.replace(",", "").replace(" and ", " ")


def _hindi(value: int) -> str:
    if value < 100:
        return _HINDI[value]
    for size, name in _HINDI_SIZES:
        if value >= size:
            head, rest = divmod(value, size)
            return f"{_hindi(head)} {name}" + (f" {_hindi(rest)}" if rest else "")
    raise AssertionError  # the sizes go down to 100


def _chinese(value: int) -> str:
    if value < 10:
        return _CHINESE[value]
    groups: list[str] = []
    gap = False
    for size, name in ((10**12, "万亿"), (10**8, "亿"), (10**4, "万"), (1, "")):
        head, value = divmod(value, size)
        if not head:
            gap = bool(groups)
            continue
        zero = "零" if groups and (gap or head < 1000) else ""
        groups.append(zero + _chinese_thousands(head) + name)
        gap = False
    words = "".join(groups)
    return words.removeprefix("一") if words.startswith("一十") else words


def _chinese_thousands(value: int) -> str:
    words, gap = "", False
    for size, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value = divmod(value, size)
        if digit:
            words += ("零" if gap and words else "") + _CHINESE[digit] + name
            gap = False
        else:
            gap = True
    return words


def number(written: str) -> str:
    """A number with or without thousands commas and decimals."""
    whole, point, fraction = written.replace(",", "").partition(".")
    return decimal(whole, fraction) if point else cardinal(whole)
