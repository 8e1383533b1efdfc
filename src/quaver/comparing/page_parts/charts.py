"""Small pictures of numbers, as inline SVG that takes its colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quaver.comparing.page_parts.markup import Html, el, in_unit, join, number
from quaver.quality.stats import Estimate

WIDTH, MARGIN = 300.0, 8.0
PADDING = 0.12  # of the range that is shown, on either side


class Scale:
    """A straight line from values to places."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._slope = (end - start) / (high - low if high > low else 1.0)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._slope


def picture(label: str, width: float, height: float, *children: Html, class_: str = "") -> Html:
    """An SVG that says what it shows to those who do not see it."""
    box = f"0 0 {width:g} {height:g}"
    return el(
        "svg", el("title", label), *children, viewBox=box, role="img", class_=class_ or "chart"
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return el("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str) -> Html:
    size = {"width": max(0.0, float(width)), "height": max(0.0, float(height))}
    return el("rect", x=float(x), y=float(y), class_=class_, **size)


def label(x: float, y: float, text: str, anchor: str = "middle", class_: str = "tick") -> Html:
    return el("text", text, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def requirement_bar(found: Estimate, allowed: float, unit: str, *, least: bool) -> Html:
    """An interval against the allowed line. With `least`, what is right of the line is allowed."""
    low, value, high, limit = (
        in_unit(x, unit) for x in (found.low, found.value, found.high, allowed)
    )
    first, last = min(low, limit, 0.0 if not least else low), max(high, limit)
    room = (last - first) * PADDING or abs(limit) * PADDING or 1.0
    first, last = first - room, last + room
    place = Scale(first, last, MARGIN, WIDTH - MARGIN)
    good, bad = ((limit, last), (first, limit)) if least else ((first, limit), (limit, last))
    top, height, middle = 20.0, 26.0, 33.0
    anchor = "start" if place(limit) < WIDTH / 3 else "end"
    anchor = "middle" if WIDTH / 3 <= place(limit) <= 2 * WIDTH / 3 else anchor
    said = f"{'at least' if least else 'at most'} {number(limit)}"
    parts = [
        rect(place(good[0]), top, place(good[1]) - place(good[0]), height, "within"),
        rect(place(bad[0]), top, place(bad[1]) - place(bad[0]), height, "beyond"),
    ]
    if first < 0 < last and limit:
        parts += [line(place(0), top, place(0), top + height, "zero")]
        if abs(place(0) - place(limit)) > 12:
            parts += [label(place(0), top + height + 12, "0")]
    parts += [
        line(place(limit), top - 4, place(limit), top + height, "limit"),
        label(place(limit), top - 8, said, anchor, "limit-label"),
        line(place(low), middle, place(high), middle, "spread"),
        *(line(place(x), middle - 5, place(x), middle + 5, "end") for x in (low, high)),
        el("circle", cx=float(place(value)), cy=middle, r=5.0, class_="value"),
    ]
    told = f"{number(value)}, between {number(low)} and {number(high)}; allowed is {said}"
    return picture(told, WIDTH, 62, *parts)


def chance_strip(change: Estimate, chance: Estimate, unit: str) -> Html:
    """A change beside what chance does."""
    low = min(change.low, chance.low, 0.0)
    high = max(change.high, chance.high, 0.0)
    place = Scale(low, high, 6.0, 114.0)
    told = (
        f"change {number(in_unit(change.value, unit))}, "
        f"by chance {number(in_unit(chance.low, unit))} to {number(in_unit(chance.high, unit))}"
    )
    return picture(
        told,
        120,
        22,
        rect(place(chance.low), 3, max(2.0, place(chance.high) - place(chance.low)), 16, "chance"),
        line(place(0), 1, place(0), 21, "zero"),
        line(place(change.low), 11, place(change.high), 11, "spread"),
        el("circle", cx=float(place(change.value)), cy=11.0, r=3.5, class_="value"),
        class_="strip",
    )


def columns(title: str, values: Sequence[float], *, bars: bool, percent: bool = False) -> Html:
    """One value a position in the frame: bars from zero, or dots on an axis of their own."""
    width, height, left, top, bottom = 420.0, 210.0, 52.0, 14.0, 178.0
    low, high = (0.0, max(values)) if bars else (min(values), max(values))
    marks = ticks(low, high, most=1.0 if percent else math.inf)
    rise = Scale(marks[0], marks[-1], bottom, top)
    step = (width - left - 10) / len(values)
    parts: list[Html] = []
    for mark in marks:
        text = f"{100 * mark:.4g} %" if percent else number(mark)
        parts += [line(left, rise(mark), width - 10, rise(mark), "grid")]
        parts += [label(left - 6, rise(mark) + 4, text, "end")]
    centres = [left + step * (k + 0.5) for k in range(len(values))]
    if bars:
        for x, value in zip(centres, values, strict=True):
            parts.append(rect(x - step * 0.3, rise(value), step * 0.6, bottom - rise(value), "bar"))
    else:
        points = " ".join(f"{x:.1f},{rise(v):.1f}" for x, v in zip(centres, values, strict=True))
        parts.append(el("polyline", points=points, class_="thread"))
        for x, value in zip(centres, values, strict=True):
            parts.append(el("circle", cx=x, cy=float(rise(value)), r=4.5, class_="dot"))
    every = max(1, math.ceil(len(values) / 16))
    parts += [label(x, bottom + 16, str(k + 1)) for k, x in enumerate(centres) if k % every == 0]
    parts += [label((left + width) / 2, height - 2, "position in the frame")]
    return el("figure", el("figcaption", title), picture(title, width, height, join(*parts)))


def ticks(low: float, high: float, most: float = math.inf) -> list[float]:
    """Round marks that hold `low` to `high`, and go no further than `most`."""
    if high <= low:
        low, high = (0.0, high) if high > 0 else (low - 1.0, low + 1.0)
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(min(high, most) / step - 1e-9)
    return [k * step for k in range(first, last + 1)]
