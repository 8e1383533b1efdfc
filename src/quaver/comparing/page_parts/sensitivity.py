"""Which part did it: what each role, and each layer, changes by itself."""

from __future__ import annotations

from collections.abc import Sequence

from quaver.comparing import Comparison
from quaver.comparing.page_parts.charts import Scale, line, picture, rect
from quaver.comparing.page_parts.markup import Html, el, estimate, join, number, scroll
from quaver.comparing.swaps import Swap
from quaver.quality.stats import Estimate

WIDTH, HEIGHT = 260.0, 18.0
WHOLE = "all together"


def sensitivity(found: Comparison) -> Html:
    """Bars with intervals: roles, then layers by number, each group on a scale of its own."""
    roles = [each for each in found.swaps if each.part.layer is None]
    layers = [each for each in found.swaps if each.part.layer is not None]
    whole = next((each.candidate for each in found.findings if each.metric == "kl"), None)
    rows = [(each.part.name, _thousandths(each.kl)) for each in roles]
    if rows and isinstance(whole, Estimate):
        rows.append((WHOLE, _thousandths(whole)))
    groups = [
        _group("By role", rows),
        _group(
            "By layer of the backbone",
            [(each.part.name, _thousandths(each.kl)) for each in _sorted(layers)],
        ),
    ]
    tried = join(*groups) if found.swaps else el("p", "No part was tried alone.", class_="reason")
    return el(
        "section",
        el("h2", "Which part did it", id="parts-title"),
        el("p", found.blame, class_="blame"),
        el(
            "p",
            "The reference with one part of the candidate's, reading what the reference said: KL "
            "divergence with its 90 % interval, in thousandths of a nat a code. Each of the two "
            "tables has a scale of its own.",
            class_="lead",
        ),
        tried,
        id="parts",
        aria_labelledby="parts-title",
    )


def _sorted(layers: Sequence[Swap]) -> list[Swap]:
    return sorted(layers, key=lambda each: each.part.layer or 0)


def _thousandths(kl: Estimate) -> Estimate:
    return Estimate(1000 * kl.value, 1000 * kl.low, 1000 * kl.high, kl.n)


def _group(heading: str, rows: Sequence[tuple[str, Estimate]]) -> Html | None:
    if not rows:
        return None
    low = min(0.0, *(kl.low for _, kl in rows))
    high = max(kl.high for _, kl in rows)
    place = Scale(low, high, 4.0, WIDTH - 4.0)
    heads = [el("th", head, scope="col") for head in ("part", "", "KL, mnat a code")]
    body = [
        el(
            "tr",
            el("th", name, scope="row"),
            el("td", _bar(kl, place)),
            el("td", estimate(kl, "")),
            class_="whole" if name == WHOLE else None,
        )
        for name, kl in rows
    ]
    table = el("table", el("thead", el("tr", heads)), el("tbody", body), class_="parts")
    return join(el("h3", heading), scroll(heading, table))


def _bar(kl: Estimate, place: Scale) -> Html:
    middle, start = HEIGHT / 2, place(0.0)
    told = f"{number(kl.value)}, between {number(kl.low)} and {number(kl.high)}"
    return picture(
        told,
        WIDTH,
        HEIGHT,
        rect(start, 3, place(kl.value) - start, HEIGHT - 6, "bar"),
        line(start, 0, start, HEIGHT, "zero"),
        line(place(kl.low), middle, place(kl.high), middle, "spread"),
        *(line(place(x), middle - 4, place(x), middle + 4, "end") for x in (kl.low, kl.high)),
        class_="part",
    )
