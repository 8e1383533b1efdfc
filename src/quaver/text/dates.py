"""Dates and times of day as English words."""

from __future__ import annotations

import re

from quaver.text.numerals import cardinal, ordinal, year

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_MONTH_NAMES = {name: name for name in MONTHS} | {name[:3]: name for name in MONTHS} | {
    "Sept": "September"
}  # fmt: skip
MONTH = rf"({'|'.join(sorted(_MONTH_NAMES, key=len, reverse=True))})\.?"


def _day_of(month: str, day: str, when: str = "") -> str:
    spoken = f"{month} {ordinal(int(day))}"
    return f"{spoken}, {year(int(when))}" if when else spoken


def iso_date(m: re.Match[str]) -> str:
    if not (1 <= int(m[2]) <= 12 and 1 <= int(m[3]) <= 31):
        return m[0]
    return _day_of(MONTHS[int(m[2]) - 1], m[3], m[1])


def numeric_date(m: re.Match[str]) -> str:
    month, day = int(m[1]), int(m[3])
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return m[0]
    when = m[4] if len(m[4]) == 4 else f"{'19' if int(m[4]) > 50 else '20'}{m[4]}"
    return _day_of(MONTHS[month - 1], str(day), when)


def month_day(m: re.Match[str]) -> str:
    if not 1 <= int(m[2]) <= 31:
        return m[0]
    end = f" to {ordinal(int(m[3]))}" if m[3] else ""
    spoken = _day_of(_MONTH_NAMES[m[1]], m[2]) + end
    return f"{spoken}, {year(int(m[4]))}" if m[4] else spoken


def day_month(m: re.Match[str]) -> str:
    if not 1 <= int(m[1]) <= 31:
        return m[0]
    spoken = f"the {ordinal(int(m[1]))} of {_MONTH_NAMES[m[2]]}"
    return f"{spoken}, {year(int(m[3]))}" if m[3] else spoken


def month_year(m: re.Match[str]) -> str:
    return f"{_MONTH_NAMES[m[1]]} {year(int(m[2]))}"


def clock_time(m: re.Match[str]) -> str:
    hour, minute, second, half = m[1], m[2], m[3], m[4]
    if int(hour) > 24 or int(minute) > 59:
        return f"{cardinal(str(int(hour)))} to {cardinal(str(int(minute)))}"
    spoken = cardinal(str(int(hour)))
    if int(minute) or second:
        oh = "oh " if minute[0] == "0" and minute != "00" else ""
        spoken += f" {oh}{cardinal(str(int(minute)))}"
        if second:
            oh = "oh " if second[0] == "0" and second != "00" else ""
            spoken += f" {oh}{cardinal(str(int(second)))}"
    elif not half:
        whole = int(hour)
        spoken = (
            "midnight"
            if whole in (0, 24)
            else f"{spoken} o'clock"
            if whole < 13
            else f"{spoken} hundred"
        )
    return f"{spoken} {half[0].upper()} M{stop_after(m)}" if half else spoken


def stop_after(m: re.Match[str]) -> str:
    """The full stop of `p.m.` where it also ends the sentence."""
    after = m.string[m.end() : m.end() + 2]
    ends = not after.strip() or after[0] == "\n" or (after[0] == " " and after[1:].isupper())
    return "." if m[0].endswith(".") and ends else ""


def hour_of_day(m: re.Match[str]) -> str:
    first = f"{cardinal(m[1])} to " if m[1] else ""
    return f"{first}{cardinal(m[2])} {m[3][0].upper()} M{stop_after(m)}"
