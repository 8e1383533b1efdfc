"""Listening without names: the form, and the sounds for it. `assets/page.js` runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from quaver.comparing.page_parts.choosing import Sounds
from quaver.comparing.page_parts.facts import named
from quaver.comparing.page_parts.markup import Html, el, join
from quaver.comparing.page_parts.utterances import Both
from quaver.comparing.speaking import CANDIDATE, REFERENCE

TASKS = (
    ("better", "Which is better?", "A and B say the same. Which of them sounds better?"),
    ("x", "Who is X?", "X is another sentence by the model of A or of B. Whose is it?"),
)


def blind(pairs: Sequence[Both], setup: Mapping[str, Any], sounds: Sounds) -> Html:
    """The section; without pairs only a sentence."""
    played = [_played(both, sounds) for both in pairs]
    kept = [each for each in played if each is not None]
    inside = _test(kept, setup) if kept else el("p", "There is nothing to play.", class_="reason")
    return el(
        "section",
        el("h2", "Blind test", id="blind-title"),
        el(
            "p",
            "Hear both without names, in an order that chance decides anew each time, and find out "
            "whether you can tell. Decide before you begin how often you will answer: a p from a "
            "test that is stopped when it looks good means nothing.",
            class_="lead",
        ),
        inside,
        id="blind",
        aria_labelledby="blind-title",
    )


def _played(both: Both, sounds: Sounds) -> dict[str, Any] | None:
    """A pair as the script takes it; a sound that has a player above is taken from there."""
    there = {side.side: sounds.has(side) for side in (both.reference, both.candidate)}
    addresses = {side.side: sounds.player(side) for side in (both.reference, both.candidate)}
    if None in addresses.values():
        return None
    return {
        "key": both.key,
        "voice": both.candidate.voice,
        **{side: None if there[side] else address for side, address in addresses.items()},
    }


def _test(pairs: list[dict[str, Any]], setup: Mapping[str, Any]) -> Html:
    data = {
        "names": {side: named(setup, side) for side in (REFERENCE, CANDIDATE)},
        "weights": setup.get("weights", {}),
        "texts_sha256": setup.get("texts_sha256"),
        "pairs": pairs,
    }
    # No script ends, or begins a comment, inside of a string.
    text = json.dumps(data).replace("<", "\\u003c")
    return join(
        el("noscript", el("p", "The blind test needs scripts.", class_="reason")),
        el(
            "div",
            _tasks(),
            el("p", id="blind-question", class_="question"),
            el(
                "div",
                [_play(name) for name in "ABX"],
                class_="keys",
                role="group",
                aria_label="Play",
            ),
            el("div", id="blind-answers", class_="keys", role="group", aria_label="Answer"),
            el("p", id="blind-said", role="status", class_="key"),
            _tally(),
            id="blind-test",
            hidden=True,
        ),
        el("script", Html(text), id="blind-data", type="application/json"),
    )


def _tasks() -> Html:
    choices = [
        el(
            "label",
            el(
                "input",
                type="radio",
                name="blind-task",
                value=task,
                data_question=question,
                checked=task == TASKS[0][0],
            ),
            " ",
            title,
        )
        for task, title, question in TASKS
    ]
    return el("fieldset", el("legend", "Task"), choices)


def _play(name: str) -> Html:
    return el(
        "button",
        "\N{BLACK RIGHT-POINTING TRIANGLE} ",
        name,
        type="button",
        data_play=name,
        aria_pressed="false",
        aria_label=f"Play {name}",
        aria_keyshortcuts=name.lower(),
    )


def _tally() -> Html:
    return el(
        "details",
        el("summary", "Tally: ", el("span", "0", id="blind-count"), " answers"),
        el("p", id="blind-result-better"),
        el("p", id="blind-result-x"),
        el("p", el("a", "Save as JSON", id="blind-save", href="#blind", download="blind.json")),
        el("p", "Answers are kept until the page is closed, and nowhere else.", class_="key"),
    )
