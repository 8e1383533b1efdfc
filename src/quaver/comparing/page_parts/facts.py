"""What was compared, and on what: models, precision of each role, texts, judges, machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quaver.comparing import Comparison
from quaver.comparing.page_parts.markup import Html, el, join, scroll
from quaver.comparing.speaking import CANDIDATE, REFERENCE

Facts = Mapping[str, Any]


def title(setup: Facts) -> str:
    """`nano in int8 beside nano in fp32`."""
    return " beside ".join(named(setup, side) for side in (CANDIDATE, REFERENCE))


def named(setup: Facts, side: str) -> str:
    """`nano in int8`."""
    return f"{setup[side]['model']} in {setup[side]['recipe']}"


def set_up(found: Comparison, machine: Facts) -> Html:
    """Everything that another run needs to be the same."""
    setup = found.setup
    return el(
        "section",
        el("h2", "Set-up", id="setup-title"),
        scroll("Models", _models(setup)),
        el(
            "div",
            _listed("Panel", _panel(setup)),
            _listed("Machine", _machine(machine)),
            _listed("Versions", _versions(setup, machine)),
            _listed("Judges", list(setup.get("judges", {}).items())),
            class_="facts",
        ),
        id="setup",
        aria_labelledby="setup-title",
    )


def _models(setup: Facts) -> Html:
    sides = [setup[REFERENCE], setup[CANDIDATE]]
    weights = setup.get("weights", {})
    rows = [
        _row("model", [side.get("model") for side in sides]),
        _row("revision", [side.get("revision") for side in sides]),
        _row("weights, SHA-256", [weights.get(side) for side in (REFERENCE, CANDIDATE)]),
        _row("recipe", [side.get("recipe") for side in sides]),
    ]
    formats = [side.get("formats") or {} for side in sides]
    for role in dict.fromkeys([*formats[0], *formats[1]]):
        rows.append(_row(role, [side.get(role) for side in formats], "role"))
    rows += [
        _row("size", [_megabytes(side.get("bytes")) for side in sides]),
        _row("parameters", [_grouped(side.get("parameters")) for side in sides]),
        _row("device", [side.get("device") for side in sides]),
    ]
    heads = [el("th", head, scope="col") for head in ("", REFERENCE, CANDIDATE)]
    return el("table", el("thead", el("tr", heads)), el("tbody", rows), class_="models")


def _row(name: str, values: Sequence[Any], class_: str = "") -> Html:
    """Where the two sides differ, that is marked."""
    if values[0] != values[1]:
        class_ = f"{class_} differs".strip()
    shown = [el("td", "\N{EN DASH}" if value is None else str(value)) for value in values]
    return el("tr", el("th", name, scope="row"), shown, class_=class_ or None)


def _panel(setup: Facts) -> list[tuple[str, Any]]:
    return [
        ("texts", setup.get("texts")),
        ("their SHA-256", str(setup.get("texts_sha256", ""))[:16]),
        ("voices, in turn", ", ".join(setup.get("voices", ())) or "the model's own"),
        ("spoken", f"{setup.get('runs')} time{'' if setup.get('runs') == 1 else 's'} each"),
        ("seed", setup.get("seed")),
    ]


def _machine(machine: Facts) -> list[tuple[str, Any]]:
    return [
        ("processor", f"{machine.get('cpu')}, {machine.get('cores')} cores"),
        ("accelerators", ", ".join(machine.get("gpus") or ()) or "none"),
        ("system", machine.get("system")),
        ("date", machine.get("date")),
    ]


def _versions(setup: Facts, machine: Facts) -> list[tuple[str, Any]]:
    found = {"quaver": setup.get("quaver"), "commit": machine.get("commit")}
    found["python"] = machine.get("python")
    packages = machine.get("versions") or {}
    found.update({name: version for name, version in packages.items() if version})
    return [(name, version) for name, version in found.items() if version]


def _listed(heading: str, rows: Sequence[tuple[str, Any]]) -> Html:
    items = [join(el("dt", name), el("dd", str(value))) for name, value in rows]
    return el("div", el("h3", heading), el("dl", items))


def _megabytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 1e6:,.1f} MB"


def _grouped(count: int | None) -> str | None:
    return None if count is None else f"{count:,}"
