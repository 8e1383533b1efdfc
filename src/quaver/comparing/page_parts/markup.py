"""Markup that escapes whatever is not markup already, and numbers as people read them.

Texts, voices, model names and reasons come from files and from users. None of them can become a
tag, because only `el` makes `Html`, and it escapes every other string.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

from quaver.quality.finding import Cell
from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Estimate

VOID = frozenset({"br", "hr", "img", "input", "meta"})
MOST_DECIMALS = 6
SIGNIFICANT = 3  # digits of an interval's width
MINUS = "\N{MINUS SIGN}"


class Html(str):
    """A string that is markup."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def el(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element. Of attributes, a trailing underscore goes, others become hyphens; None and False
    leave one out."""
    opening = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        called = key.rstrip("_").replace("_", "-")
        opening += f" {called}" if value is True else f' {called}="{_attribute(value)}"'
    if name in VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children one after another."""
    return Html("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int)):
        return html.escape(str(child))
    return "".join(_text(one) for one in child)


def _attribute(value: str | float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else html.escape(str(value))


def scroll(label: str, *children: Child) -> Html:
    """A box that scrolls sideways, by keyboard too, so that the page need not."""
    return el("div", *children, class_="scroll", role="region", aria_label=label, tabindex="0")


def shown_unit(unit: str) -> str:
    return "%" if unit == "share" else unit


def in_unit(value: float, unit: str) -> float:
    """Shares are shown as percentages."""
    return 100 * value if unit == "share" else value


def number(value: float, decimals: int | None = None, *, signed: bool = False) -> str:
    """With a true minus; three significant digits where `decimals` does not say."""
    if decimals is None:
        size = abs(value)
        digits = SIGNIFICANT - 1 - math.floor(math.log10(size)) if size else 0
        decimals = max(0, digits)
        text = f"{value:.{decimals}f}" if decimals <= MOST_DECIMALS else f"{value:.1e}"
        if "." in text and "e" not in text:
            text = text.rstrip("0").rstrip(".")
    else:
        text = f"{value:,.{decimals}f}" if decimals <= MOST_DECIMALS else f"{value:.1e}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    elif signed and value > 0:
        text = f"+{text}"
    return text.replace("-", MINUS)


def decimals_for(width: float) -> int:
    """As many as show an interval's width in `SIGNIFICANT` digits."""
    if width <= 0:
        return SIGNIFICANT
    return max(0, SIGNIFICANT - 1 - math.floor(math.log10(width)))


def estimate(value: Estimate, unit: str, *, signed: bool = False) -> Html:
    """`8.5 [0.0, 17.7]`, without its unit."""
    middle, low, high = (in_unit(x, unit) for x in (value.value, value.low, value.high))
    places = decimals_for(high - low)
    if high == low:
        return join(el("b", number(middle, signed=signed)))
    ends = f"[{number(low, places)}, {number(high, places)}]"
    return join(
        el("b", number(middle, places, signed=signed)), " ", el("span", ends, class_="interval")
    )


class Notes:
    """Reasons, each told once below a table and pointed at by its number."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._reasons: list[str] = []

    def cell(self, cell: Cell, unit: str, *, signed: bool = False) -> Html:
        """An estimate, or a mark that leads to the reason why there is none."""
        if not isinstance(cell, NotMeasured):
            return estimate(cell, unit, signed=signed)
        if cell.reason not in self._reasons:
            self._reasons.append(cell.reason)
        place = self._reasons.index(cell.reason) + 1
        label = f"not measured, reason {place}"
        link = el("a", place, href=f"#{self._prefix}-{place}", aria_label=label)
        return el("span", "\N{EN DASH}", el("sup", link), class_="missing")

    def listed(self) -> Html:
        """The reasons; nothing if all was measured."""
        if not self._reasons:
            return Html("")
        items = [
            el("li", reason, id=f"{self._prefix}-{place}")
            for place, reason in enumerate(self._reasons, 1)
        ]
        return join(
            el("p", "Why a number is missing:", class_="notes"), el("ol", items, class_="notes")
        )
