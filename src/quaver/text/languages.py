"""Numbers of languages other than English: integers, decimals, percent and prices."""

from __future__ import annotations

import re

from quaver.text.numerals import LANGUAGES, MINUS, cardinal, decimal

_PERCENT = {"fr": "pour cent", "de": "Prozent", "es": "por ciento", "it": "per cento",
            "ko": "퍼센트", "hi": "प्रतिशत", "zh": "百分之"}  # fmt: skip
_MONEY = {
    "fr": {"€": "euros", "$": "dollars", "£": "livres"},
    "de": {"€": "Euro", "$": "Dollar", "£": "Pfund"},
    "es": {"€": "euros", "$": "dólares", "£": "libras"},
    "it": {"€": "euro", "$": "dollari", "£": "sterline"},
    "ko": {"€": "유로", "$": "달러", "£": "파운드", "₩": "원"},
    "hi": {"€": "यूरो", "$": "डॉलर", "£": "पाउंड", "₹": "रुपये"},
    "zh": {"€": "欧元", "$": "美元", "£": "英镑", "¥": "元"},
}
_COMMA = ("fr", "de", "es", "it")  # languages that write a comma before decimals
_AND = {"fr": " et ", "de": " und ", "es": " y ", "it": " e ", "ko": ", ", "hi": " और ", "zh": "和"}
_AND_SIGN = re.compile(r"\s?&\s?")
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-−])?(?P<before>[€$£₩₹¥])?\s?"
    r"(?P<number>\d+(?:[.,'\u202f ]\d{3})*+(?:[.,]\d+)?)(?:\s?(?P<after>[%€$£₩₹¥]))?"
)
_DIGITS = re.compile(r"\d+")


def read_foreign_numbers(text: str, language: str) -> str:
    """`text` with numbers, percentages and prices in words, if `language` is known."""
    if language not in LANGUAGES:
        return text
    text = _AND_SIGN.sub(_AND[language], _NUMBER.sub(lambda m: _number(m, language), text))
    return _DIGITS.sub(lambda m: f" {cardinal(_ascii(m[0]), language)} ", text)


def _number(m: re.Match[str], language: str) -> str:
    sign = m["before"] or m["after"]
    joint = "" if language == "zh" else " "
    spoken = _value(m["number"], language)
    minus = MINUS[language] + joint if m["sign"] else ""
    if sign == "%":
        name = _PERCENT[language]
        return f"{minus}{name}{spoken}" if language == "zh" else f"{minus}{spoken} {name}"
    if sign:
        spoken += joint + _MONEY[language].get(sign, "")
    return minus + spoken.strip()


def _value(written: str, language: str) -> str:
    point, thousands = (",", ".") if language in _COMMA else (".", ",")
    written = _ascii(re.sub(r"['\u202f ]", "", written))
    grouped = re.fullmatch(rf"\d{{1,3}}(?:\{thousands}\d{{3}})+(?:\{point}\d+)?", written)
    if grouped or point in written:
        written = written.replace(thousands, "")
    elif thousands in written:  # a decimal written as in English
        written = written.replace(thousands, point)
    whole, has_point, fraction = written.partition(point)
    fraction = re.sub(r"\D", "", fraction)
    return (
        decimal(whole, fraction, language) if has_point and fraction else cardinal(whole, language)
    )


def _ascii(digits: str) -> str:
    return "".join(str(int(c)) if c.isdecimal() else c for c in digits)
