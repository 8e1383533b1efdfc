"""`report.html`: everything that was found, for people, in one file that needs no other."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from quaver.bench.machine import fingerprint
from quaver.checkpoints.atomic import new_file
from quaver.comparing import Comparison
from quaver.comparing.page_parts.blind import blind
from quaver.comparing.page_parts.choosing import Sounds, choose, ranked
from quaver.comparing.page_parts.examples import examples, failures
from quaver.comparing.page_parts.facts import set_up, title
from quaver.comparing.page_parts.markup import Html, el, join
from quaver.comparing.page_parts.sensitivity import sensitivity
from quaver.comparing.page_parts.table import findings, positions
from quaver.comparing.page_parts.utterances import read_utterances
from quaver.comparing.page_parts.verdict import requirements, verdict

NAME = "report.html"
SECTIONS = {
    "requirements": "Requirements",
    "findings": "Findings",
    "parts": "Parts",
    "positions": "Positions",
    "utterances": "Utterances",
    "blind": "Blind test",
    "failures": "Failures",
    "setup": "Set-up",
}


def write_page(folder: Path, found: Comparison) -> Path:
    """Write `report.html` into `folder`, where `compare` left its ledger and sound; its path.

    Raises InputError for a ledger of another comparison or damaged sound, CheckpointError where
    nothing can be written.
    """
    path = folder / NAME
    text = page(folder, found)
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def page(folder: Path, found: Comparison) -> str:
    """The whole document."""
    style, script = (Html(_asset(name)) for name in ("page.css", "page.js"))
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title(found.setup)),
        el("style", style),
    )
    body = el("body", _header(found), el("main", _sections(folder, found)), el("script", script))
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _header(found: Comparison) -> Html:
    links = [el("a", name, href=f"#{place}") for place, name in SECTIONS.items()]
    return el(
        "header",
        el("p", "Quaver: does it still sound right?", class_="kicker"),
        el("h1", title(found.setup)),
        verdict(found),
        el("nav", links, aria_label="Sections"),
        class_="top",
    )


def _sections(folder: Path, found: Comparison) -> Html:
    """In the order in which sound is given its room: what is shown, what failed, the blind test."""
    utterances = read_utterances(folder, found.setup)
    order, sounds = ranked(utterances), Sounds()
    choice = choose(order, int(found.setup["seed"]))
    shown = examples(choice.shown, order, sounds)
    broken = failures(utterances, sounds)
    return join(
        requirements(found),
        findings(found),
        sensitivity(found),
        positions(found),
        shown,
        blind(choice.blind, found.setup, sounds),
        broken,
        set_up(found, fingerprint()),
    )


def _asset(name: str) -> str:
    return (files("quaver.comparing") / "assets" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing from elsewhere, and no script or style but ours, whatever a text may hold."""
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
