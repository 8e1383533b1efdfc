"""What should have been said beside what was heard, word by word."""

from __future__ import annotations

from collections.abc import Sequence

from quaver.comparing.page_parts.markup import Html, el
from quaver.quality.words import normalise

Step = tuple[str | None, str | None]  # expected, heard; None where there is no such word


def steps(expected: Sequence[str], heard: Sequence[str]) -> list[Step]:
    """The fewest substitutions, deletions and insertions from one to the other (Levenshtein)."""
    costs = [[0] * (len(heard) + 1) for _ in range(len(expected) + 1)]
    for row in range(len(expected) + 1):
        for column in range(len(heard) + 1):
            if row == 0 or column == 0:
                costs[row][column] = row + column
                continue
            changed = expected[row - 1] != heard[column - 1]
            costs[row][column] = min(
                costs[row - 1][column - 1] + changed,
                costs[row - 1][column] + 1,
                costs[row][column - 1] + 1,
            )
    return _walk(costs, expected, heard)


def _walk(costs: list[list[int]], expected: Sequence[str], heard: Sequence[str]) -> list[Step]:
    """From the end back to the start, whichever way the costs came."""
    found: list[Step] = []
    row, column = len(expected), len(heard)
    while row or column:
        here = costs[row][column]
        if row and column:
            changed = expected[row - 1] != heard[column - 1]
            if here == costs[row - 1][column - 1] + changed:
                row, column = row - 1, column - 1
                found.append((expected[row], heard[column]))
                continue
        if row and here == costs[row - 1][column] + 1:
            row -= 1
            found.append((expected[row], None))
        else:
            column -= 1
            found.append((None, heard[column]))
    return found[::-1]


def compared(text: str, transcript: str | None) -> Html:
    """The transcript with its mistakes marked, by form as well as by colour."""
    if transcript is None:
        return el("p", "There is no transcript.", class_="reason")
    words = [
        _word(expected, heard)
        for expected, heard in steps(normalise(text).split(), normalise(transcript).split())
    ]
    return el("p", [[word, " "] for word in words] or "Nothing was heard.", class_="words")


def _word(expected: str | None, heard: str | None) -> Html:
    if expected == heard:
        return el("span", heard)
    if heard is None:
        return el("del", expected, title="not heard")
    if expected is None:
        return el("ins", heard, title="not in the text")
    told = f"heard instead of {expected}"
    return el("span", el("s", expected), " ", el("em", heard), class_="swap", title=told)
