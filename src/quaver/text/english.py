"""English numbers, prices, dates, times and units as words."""

from __future__ import annotations

import re
from collections.abc import Callable

from quaver.text.dates import (
    MONTH,
    clock_time,
    day_month,
    hour_of_day,
    iso_date,
    month_day,
    month_year,
    numeric_date,
)
from quaver.text.measures import CURRENCIES, MAGNITUDES, UNITS
from quaver.text.numerals import cardinal, number, one_by_one, ordinal, year
from quaver.text.ratios import FRACTIONS, divided, mixed, vulgar

_N = r"(?:\d{1,3}(?:,\d{3})++(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_START = r"(?<![\w.,])"
_END = r"(?![\w])"
_SIGN = r"(?:(?<![\w.)\]])[-−+±~≈])?\s?"
_DASH = r"\s?(?:[-–—]|\bto\b)\s?"
_UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_CURRENCY = "|".join(sorted(map(re.escape, CURRENCIES), key=len, reverse=True))
_SYMBOLS = "|".join(
    re.escape(c) for c in sorted(CURRENCIES, key=len, reverse=True) if not c.isalpha()
)
_SIZE = "|".join(sorted(MAGNITUDES, key=len, reverse=True))
_SIGNS = {"-": "minus ", "−": "minus ", "+": "plus ", "±": "plus or minus ", "~": "about ",
          "≈": "about "}  # fmt: skip
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")
_PER = {"s": "second", "h": "hour", "min": "minute", "hr": "hour", "sec": "second",
        "mo": "month", "yr": "year", "wk": "week", "d": "day"}  # fmt: skip


def read_numbers(text: str) -> str:
    """`text` with every number, date, time, price and measure as English words."""
    if not any(c.isdigit() or c in FRACTIONS for c in text):
        return text
    for pattern, spoken in _RULES:
        text = pattern.sub(spoken, text)
    return text


def plural(word: str) -> str:
    """`word`'s plural: twenties, tens."""
    return word[:-1] + "ies" if word.endswith("y") else word + ("es" if word.endswith("x") else "s")


def _phone(m: re.Match[str]) -> str:
    plus = "plus " if m[0].startswith("+") else ""
    groups = re.findall(r"\d+", m[0])
    return plus + ", ".join(one_by_one(group) for group in groups)


def _plain_value(written: str) -> float:
    return float(written.replace(",", ""))


def _price(m: re.Match[str]) -> str:
    sign, currency, amount, last, size = m["sign"], m["currency"], m["amount"], m["last"], m["size"]
    one, many, cent, cents = CURRENCIES[currency.strip()]
    minus = _SIGNS[sign] if sign else ""
    amount = _american(amount)
    adjective = _describes(m)
    if last or size:
        size = f" {MAGNITUDES[size]}" if size else ""
        to = f" to {number(_american(last))}" if last else ""
        return f"{minus}{number(amount)}{to}{size} {one if adjective else many}"
    whole, _, rest = amount.replace(",", "").partition(".")
    if rest and (len(rest) > 2 or not cent):
        return f"{minus}{number(amount)} {many}"
    hundredths = int(rest.ljust(2, "0")) if rest else 0
    parts = []
    if not hundredths or int(whole or 0):
        parts.append(f"{number(whole or '0')} {one if adjective or whole == '1' else many}")
    if hundredths:
        parts.append(f"{cardinal(str(hundredths))} {cent if hundredths == 1 else cents}")
    return minus + " and ".join(parts)


def _american(amount: str) -> str:
    """`1.000,50` and `5,99` with an American point."""
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})*,\d{1,2}", amount):
        return amount.replace(".", "").replace(",", ".")
    return amount


def _describes(m: re.Match[str]) -> bool:
    """Whether a measure stands before a noun, as in `a $5 bill`, where it is singular."""
    before = m.string[max(0, m.start() - 4) : m.start()]
    after = m.string[m.end() : m.end() + 16]
    article = re.search(r"(?:^|\W)an? $", before, re.IGNORECASE)
    stop = (
        r" (?!(?:for|per|in|and|or|to|on|of|more|less|off|at|from|each|is|a|an|the|with|by)\b)[a-z]"
    )
    return article is not None and re.match(stop, after) is not None


def _price_after(m: re.Match[str]) -> str:
    return f"{m['currency'].strip()}{m['amount']}{' ' + m['size'] if m['size'] else ''}"


def _percent(m: re.Match[str]) -> str:
    to = f" to {number(m[3])}" if m[3] else ""
    sign, unit = _SIGNS.get((m[1] or "").strip(), ""), "per mille" if m[4] == "‰" else "percent"
    return f"{sign}{number(m[2])}{to} {unit}"


def _measure(m: re.Match[str]) -> str:
    sign, first, last, size, unit, power, per = m.groups()
    one, many = UNITS[unit]
    single = _plain_value(last or first) == 1 and not size
    name = one if single or _describes(m) else many
    if power:
        name = f"{'square' if power in '2²' else 'cubic'} {name}"
    to = f" to {_signed(last)}" if last else ""
    size = f" {MAGNITUDES[size]}" if size else ""
    spoken = f"{_SIGNS.get(sign.strip() if sign else '', '')}{number(first)}{to}{size} {name}"
    if per:
        bare = per.rstrip("²2")
        below = _PER.get(bare) or (UNITS[bare][0] if bare in UNITS else bare)
        spoken += f" per {below}" + (" squared" if bare != per else "")
    return spoken


def _signed(written: str) -> str:
    return number(written)


def _feet(m: re.Match[str]) -> str:
    feet = f"{cardinal(m[1])} {'foot' if m[1] == '1' else 'feet'}"
    return feet + (f" {cardinal(m[2])} {'inch' if m[2] == '1' else 'inches'}" if m[2] else "")


def _decade(m: re.Match[str]) -> str:
    written = m[1]
    if len(written) == 2:
        return plural(cardinal(written))
    return plural(year(int(written))) if written[2:] != "00" else f"{year(int(written))}s"


def _range(m: re.Match[str]) -> str:
    first, last = m[1], m[2]
    if " - " in m[0] and _plain_value(first) > _plain_value(last):
        return f"{first} minus {last}"
    return f"{first} to {last}"


def _bare(m: re.Match[str]) -> str:
    written = m[0]
    if len(written) == 4 and written[0] in "12" and written.isdigit() and int(written) < 2100:
        return year(int(written))
    return number(written)


def _version(m: re.Match[str]) -> str:
    parts = m[2].split(".")
    joint = " dot " if len(parts) == 4 else " point "
    name = "version " if m[1] else ""
    return name + joint.join(cardinal(part) for part in parts)


def _power(m: re.Match[str]) -> str:
    exponent = (m[2] or m[3]).translate(_SUPER)
    minus = exponent.startswith("-")
    value = exponent.lstrip("-")
    if value in ("2", "3") and not minus:
        return f"{m[1]} {'squared' if value == '2' else 'cubed'}"
    power = cardinal(value) if value.isdigit() else value
    return f"{m[1]} to the power of {'minus ' if minus else ''}{power}"


_OPERATORS = {"+": "plus", "-": "minus", "−": "minus", "*": "times", "×": "times", "·": "times",
              "÷": "divided by", "/": "divided by", "=": "equals", "==": "equals",
              "→": "to", "≈": "is about", "≠": "is not equal to", "<": "is less than",
              ">": "is greater than", "≤": "is at most", "≥": "is at least", "±": "plus or minus",
              "x": "times", "<=": "is at most", ">=": "is at least", "!=": "is not equal to",
              "%": "modulo", "^": "to the power of"}  # fmt: skip
_OPERAND = r"(?:\d[\d.,]*\d|\d|\b[A-Za-z]\b|\)|\()"
_NOT_SIGN = r"(?<![\w.,)])"

Spoken = str | Callable[[re.Match[str]], str]  # what a match becomes
_RULES: list[tuple[re.Pattern[str], Spoken]] = []


def _rule(pattern: str, spoken: Spoken, flags: int = 0) -> None:
    _RULES.append((re.compile(pattern, flags), spoken))


def _define_rules() -> None:
    _rule(r"(?<![\d.])(?:(\d+)\s?)?([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒])", vulgar)
    _rule(r"([\w)])(?:([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]{1,10})|\^\{?(-?\w{1,10})\}?)", _unit_or_power)
    _rule(r"[₀-₉]+", lambda m: m[0].translate(_SUPER))
    # phone numbers
    _rule(r"(?<![\w.])\+\d{1,3}(?:[ .-]\(?\d{1,5}\)?){2,5}(?!\w)", _phone)
    _rule(r"(?<![\w.])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\w)", _phone)
    _rule(r"(?<![\w.$€£-])\d{3}-\d{4}(?![\w-])", _phone)
    _rule(r"(?<![\w.$€£-])(?:\d{3}-\d{2}-\d{4}|\d{5}-\d{4})(?![\w-])", _phone)
    _rule(
        r"(?<=\d)/(month|mo|year|yr|day|week|wk|hour|hr|person|user|night|minute|kg|lb|g|unit)\b",
        lambda m: f" per {_PER.get(m[1]) or UNITS.get(m[1], (m[1],))[0]}",
    )
    _rule(r"(?<=[\dAaPp][Mm])\s?[-–]\s?(?=\d)|(?<=:\d\d)\s?[-–]\s?(?=\d{1,2}:\d\d)", " to ")
    _rule(r"(?<=\d)\s?-\s?(?=\d{1,15}\s?=)", " minus ")
    # dates and times
    _rule(
        r"(?<![\w.-])([12]\d{3})[-/.](\d{1,2})[-/.](\d{1,2})(?:T(?=\d))?(?![\d-])",
        lambda m: iso_date(m) + (" at " if m[0].endswith("T") else ""),
    )
    _rule(r"(?<![\w.])(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|(?<=/)\d{2})(?![\w-])", numeric_date)
    _rule(
        rf"\b{MONTH} (\d{{1,2}})(?:st|nd|rd|th)?(?:\s?[-–—]\s?(\d{{1,2}})(?:st|nd|rd|th)?)?"
        r"(?:,? (\d{4}))?(?![\w:%]|[.,]\d)",
        month_day,
    )
    _rule(
        rf"(?:\bthe )?(?<![\w.,$€£])(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {MONTH}"
        r"(?:,? (\d{4}))?(?!\w)",
        day_month,
    )
    _rule(rf"\b{MONTH},? ([12]\d{{3}})(?!\w|[.,]\d)", month_year)
    half = r"(?:\s?([AaPp])\.?\s?[Mm]\b\.?(?!\w))"
    _rule(
        rf"(?<![\w:.])(\d{{1,2}}):(\d{{2}})(?::(\d{{2}})(?:\.\d+)?)?{half}?(?!\d|:\d)", clock_time
    )
    _rule(rf"(?<![\w:.,$])(?:(\d{{1,2}})\s?[-–]\s?)?(\d{{1,2}}){half}", hour_of_day)
    _rule(
        r"(?<![\w:.])(\d{1,3}):(\d{1,3})(?![\d:])",
        lambda m: f"{cardinal(m[1])} to {cardinal(m[2])}",
    )
    # thousands written with spaces or apostrophes
    _rule(
        r"(?<![\w.,])([1-9]\d{0,2})((?:[ ']\d{3})++)(?![\w]|[.,]\d| \d)",
        lambda m: m[1] + re.sub(r"\D", "", m[2]),
    )
    _define_values()


def _define_values() -> None:
    _rule(r"(?:(?<!\w)['’])?(?<![\w.,$€£])(\d0|[12]\d{2}0)['’]?s\b(?!/)", _decade)
    amount = (
        r"\d{1,3}(?:,\d{3})++(?:\.\d+)?|\d{1,3}(?:\.\d{3})+,\d{1,2}|\d+,\d{2}(?!\d)"
        r"|\d+(?:\.\d+)?|\.\d+"
    )
    words = "hundred|thousand|million|billion|trillion|mil|bil|bn|mn"
    size = rf"(?:(?:\s(?:{words})|\s?(?:{_SIZE}))(?!\w))"
    _rule(
        rf"(?<![\w.])(?P<amount>{amount})(?P<size>{size})?\s?(?P<currency>{_CURRENCY})(?![\w\d])",
        _price_after_text,
    )
    _rule(
        rf"(?P<sign>(?<![\w.)])[-−+~±])?(?P<currency>(?<![A-Za-z])(?:{_CURRENCY}))\s?(?P<minus>[-−])?"
        rf"(?P<amount>{amount})(?:\s?[-–—]\s?(?:{_SYMBOLS})?(?P<last>{amount}))?"
        rf"(?:\s?(?P<size>{_SIZE})(?!\w))?",
        _signed_price,
    )
    _rule(
        r"(?<![\w.])(\d+)\s?¢", lambda m: f"{cardinal(m[1])} {'cent' if m[1] == '1' else 'cents'}"
    )
    _rule(rf"((?<![\w.)])[-−+±~≈])?(?<![\w.,])({_N})(?:{_DASH}({_N}))?\s?([%‰])", _percent)
    _rule(r"(?<![\w.])(\d{1,2})['′’] ?(\d{1,2})(?:\"|''|″)", _feet)
    _rule(
        rf"((?<![\w.)])[-−+±~≈]\s?)?(?<![\w.,])({_N})°?(?:{_DASH}[-−]?({_N}))?"
        r"(?: (million|billion|thousand|trillion))?[\s-]?"
        rf"({_UNIT})(?:([²³])|\^([23]))?(?:/([A-Za-zµ]{{1,5}}[²2]?))?(?![\w°])",
        _measure_power,
    )
    _rule(
        rf"(?<![\w.,])({_N})\s?(k|K|M|B|bn|mn|T)(?!\w|[-]\w)",
        lambda m: f"{number(m[1])} {MAGNITUDES[m[2]]}",
    )
    _rule(r"(?<![\w.,])(\d+)[xX×](?!\w)", lambda m: f"{cardinal(m[1])} times")
    _rule(r"(?<=\d)\s?[xX×]\s?(?=\d)(?=\d+(?:\.\d+)?(?![\d\s]*=))", " by ")
    _define_plain()


def _scientific(m: re.Match[str]) -> str:
    minus = "minus " if m[2][0] == "-" else ""
    return f"{number(m[1])} times ten to the {minus}{cardinal(str(abs(int(m[2]))))}"


def _define_plain() -> None:
    _rule(
        r"(?<!\w)['’](\d{2})(?!\w)",
        lambda m: cardinal(str(int(m[1]))) if m[1][0] != "0" else f"oh {cardinal(m[1][1])}",
    )
    _rule(r"(?<![\w.,])(\d{1,15})(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1])))
    _rule(r"(?<![\w.])(\d{1,3}) (\d{1,2})/(\d{1,2})(?![\w/])", mixed)
    _rule(r"(?<![\w./])(\d{1,4})/(\d{1,4})(?![\w/]|\.\d)", divided)
    _rule(r"(?<![\w.])([vV]\.?\s?)?(\d{1,9}(?:\.\d{1,9}){2,5})(?![\w.])", _version)
    _rule(r"\b([vV])(\d{1,9}(?:\.\d{1,9})?)(?![\w.]\w)", _version)
    _rule(r"\b[Ee]-(?=\d)", "E ")
    _rule(
        r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)",
        _scientific,
    )
    _rule(rf"(?<![\w.,/-])({_N})(?:\s?[–—]\s?|-| - )({_N})(?![\w/]|[-.,]\d)", _range)
    _rule(r"(?<![^\W_])#\s?(?=\d)", "number ")
    _rule(r"\b(?:[Nn]o|[Nn]os|№|NO)\.?\s?(?=\d)(?<=[.\s])", "number ")
    _rule(r"(?<![\w)\]])±\s?(?=[\d.])", "plus or minus ")
    _rule(r"(?<![\w)\]])[-−](?=[\d.]*\d)", "minus ")
    _rule(r"(?<![\w)\]])\+(?=\d)", "plus ")
    _rule(r"(?<!\w)[~≈]\s?(?=\d)", "about ")
    _rule(
        r"(?<![\w)] )(?<![\w)])(<=|>=|[<>≤≥])\s?(?=\d)",
        lambda m: {
            "<": "less than ",
            ">": "more than ",
            "≤": "at most ",
            "≥": "at least ",
            "<=": "at most ",
            ">=": "at least ",
        }[m[1]],
    )
    operators = "|".join(sorted(map(re.escape, _OPERATORS), key=len, reverse=True))
    _rule(
        rf"(?<=[\dA-Za-z)]) ?({operators}) ?(?=[\d(])(?<!\w[x/%-])(?<![A-Za-z][+*=<>])",
        lambda m: f" {_OPERATORS[m[1]]} ",
    )
    _rule(
        r"(?<=[\d)]) ?([+*×÷=≈≠<>≤≥→]|==|<=|>=|!=) ?(?=[\dA-Za-z(])",
        lambda m: f" {_OPERATORS[m[1]]} ",
    )
    _rule(r"(?<=[A-Za-z])[-–]?(?=\d)|(?<=\d)(?=[A-Za-z])", " ")
    _rule(r"(?<=\d)[:](?=\d)", " ")
    _rule(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d])|\d+\.\d+|(?<![\w.])\.\d+|\d+", _bare)


def _price_after_text(m: re.Match[str]) -> str:
    return f"{m['currency']}{m['amount']}{m['size'] or ''}"


def _signed_price(m: re.Match[str]) -> str:
    spoken = _price(m)
    return f"minus {spoken}" if m["minus"] else spoken


def _measure_power(m: re.Match[str]) -> str:
    return _measure(_Measured(m))  # type: ignore[arg-type]


def _unit_or_power(m: re.Match[str]) -> str:
    before = re.search(rf"[\d\s/]({_UNIT})$", m.string[max(0, m.start() - 6) : m.start() + 1])
    if before and (m[2] or "") in ("²", "³"):
        return m[0]
    return _power(m)


class _Measured:
    """A match of a measure with its two spellings of a power as one group."""

    def __init__(self, match: re.Match[str]) -> None:
        self._match = match
        self.string = match.string

    def groups(self) -> tuple[str | None, ...]:
        sign, first, last, size, unit, power, caret, per = self._match.groups()
        return sign, first, last, size, unit, power or caret, per

    def start(self) -> int:
        return self._match.start()

    def end(self) -> int:
        return self._match.end()


_define_rules()
