"""All findings in one table, layer by layer, and both models' next choices by position."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quaver.comparing import Comparison
from quaver.comparing.page_parts.charts import chance_strip, columns
from quaver.comparing.page_parts.markup import Html, Notes, el, join, number, scroll, shown_unit
from quaver.comparing.page_parts.verdict import MEANINGS, judge_name
from quaver.quality.finding import Finding, Layer
from quaver.quality.metrics.agreement import Agreement
from quaver.quality.stats import Estimate

LAYERS: Mapping[Layer, str] = MappingProxyType(
    {
        Layer.FORCED: "both read the same tokens; by chance, the reference in a batch, not alone",
        Layer.CODEC: "both decode the same codes; chance has no part",
        Layer.SPEECH: "both speak the same texts, each with seeds of its own",
        Layer.SPEED: "the time of speaking",
    }
)
HEADS = (
    *("metric", "reference", "candidate", "change", "by chance"),
    *("change in chance", "n", "judge"),
)


def findings(found: Comparison) -> Html:
    """Every number, or the reason why there is none."""
    notes = Notes("reason")
    bodies = [
        _layer(layer, [each for each in found.findings if each.layer is layer], notes)
        for layer in Layer
    ]
    heads = el("tr", [el("th", head, scope="col") for head in HEADS])
    return el(
        "section",
        el("h2", "Findings", id="findings-title"),
        el(
            "p",
            "Intervals hold the true value with 90 % confidence. By chance: how far the reference "
            "is from itself, when speaking under other seeds, drawn as a band behind the "
            "candidate's change. An arrow shows which way is better.",
            class_="lead",
        ),
        scroll("Findings", el("table", el("thead", heads), bodies, class_="findings")),
        notes.listed(),
        id="findings",
        aria_labelledby="findings-title",
    )


def _layer(layer: Layer, rows: list[Finding], notes: Notes) -> Html | None:
    if not rows:
        return None
    head = el(
        "th",
        el("b", layer.value),
        f": {LAYERS[layer]}",
        colspan=len(HEADS),
        scope="rowgroup",
        class_="layer",
    )
    return el("tbody", el("tr", head), [_row(each, notes) for each in rows])


def _row(each: Finding, notes: Notes) -> Html:
    measured = isinstance(each.candidate, Estimate) or isinstance(each.reference, Estimate)
    arrow = ("\N{UPWARDS ARROW}", "more is better")
    if not each.higher_is_better:
        arrow = ("\N{DOWNWARDS ARROW}", "less is better")
    strip = None
    if isinstance(each.change, Estimate) and isinstance(each.null, Estimate):
        strip = chance_strip(each.change, each.null, each.unit)
    cells = [
        notes.cell(each.reference, each.unit),
        notes.cell(each.candidate, each.unit),
        notes.cell(each.change, each.unit, signed=True),
        notes.cell(each.null, each.unit, signed=each.layer is not Layer.FORCED),
    ]
    sizes = [x.n for x in (each.candidate, each.reference) if isinstance(x, Estimate)]
    unit = shown_unit(each.unit)
    return el(
        "tr",
        el(
            "th",
            el("span", each.metric, title=MEANINGS.get(each.metric)),
            el("span", " ", arrow[0], title=arrow[1], class_="arrow") if measured else None,
            el("span", unit, class_="unit") if unit else None,
            scope="row",
        ),
        [el("td", cell) for cell in cells],
        el("td", strip),
        el("td", str(sizes[0]) if sizes else ""),
        el("td", judge_name(each), class_="judge"),
    )


def positions(found: Comparison) -> Html:
    """KL and top-1 for each place in a frame of codes."""
    totals = _totals(found)
    if totals:
        body = join(
            el(
                "div",
                columns("KL divergence, nats a code", [t.kl_nats for t in totals], bars=True),
                columns("Top-1 agreement", [t.top1 for t in totals], bars=False, percent=True),
                class_="pair",
            ),
            _numbers(totals),
        )
    else:
        body = el("p", "No text was read by both.", class_="reason")
    return el(
        "section",
        el("h2", "By position in the frame", id="positions-title"),
        el(
            "p",
            "What both models would say next after the same codes. A frame is one step of the "
            "codec; its codes are said one after another.",
            class_="lead",
        ),
        body,
        id="positions",
        aria_labelledby="positions-title",
    )


def _totals(found: Comparison) -> list[Agreement]:
    rows = zip(*(each.positions for each in found.replays), strict=True)
    totals = [sum(row, Agreement()) for row in rows]
    return totals if all(total.count for total in totals) else []


def _numbers(totals: list[Agreement]) -> Html:
    heads = ("position", "KL", "top-1", "choices")
    rows = [
        el(
            "tr",
            el("th", place, scope="row"),
            el("td", number(total.kl_nats)),
            el("td", f"{100 * total.top1:.2f} %"),
            el("td", f"{total.count:,}"),
        )
        for place, total in enumerate(totals, 1)
    ]
    head = el("tr", [el("th", each, scope="col") for each in heads])
    table = el("table", el("thead", head), el("tbody", rows))
    return el("details", el("summary", "As numbers"), scroll("By position", table))
