"""Regular expressions that strangers wrote: parsed here, matched without backtracking, or refused.

`quantization_config` names layers by patterns, and `tokenizer.json` splits text by them. An engine
that backtracks, as Python's and Oniguruma do, takes exponential time on some of them. A `Pattern`
keeps the set of all positions that it can have reached instead, so its time is bounded by the
lengths of pattern and text, and a budget bounds it again. `is_steady` says of a pattern for a
backtracking engine that it has none of the forms that make those slow.

Understood are literals, `.`, classes, escapes, groups, alternatives, greedy and lazy repetition,
lookahead, `^`, `$` and `\\b`: what llm-compressor's recipes and tokenizers have. Anything else is a
ValueError, which says what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from quaver.checkpoints.pattern_nodes import UNBOUNDED, Budget, Char, Choice, Node, Repeat
from quaver.checkpoints.pattern_reader import parse


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. ValueError if it cannot be."""

    source: str
    root: Node = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", parse(self.source))

    def matches(self, text: str, budget: Budget) -> bool:
        """Whether it matches at the beginning of `text`, as `re.match` does. ValueError if the
        budget is spent."""
        return bool(self.root.ends(text, {0}, budget))


def is_steady(root: Node) -> bool:
    """Whether a backtracking engine takes little time for the pattern, whatever the text.

    Repeated without bound are single characters only, twice at most in each alternative, and at
    most six parts of one may be there or not. Time then grows with the cube of the text at worst.
    """
    each = [_freedom(alternative) for alternative in _alternatives(root)]
    return not _repeats_groups(root) and all(u <= 2 and o <= 6 for u, o in each)


def _alternatives(root: Node) -> Iterator[Node]:
    if isinstance(root, Choice):
        for item in root.items:
            yield from _alternatives(item)
    else:
        yield root


def _freedom(node: Node) -> tuple[int, int]:
    """How many parts may be repeated without bound, and how many a bounded number of times."""
    below = [_freedom(part) for part in node.parts()]
    unbounded, optional = sum(each[0] for each in below), sum(each[1] for each in below)
    if isinstance(node, Repeat) and not node.possessive:
        unbounded += node.high is UNBOUNDED
        optional += node.high is not UNBOUNDED and node.high > node.low
    return unbounded, optional


def _repeats_groups(node: Node) -> bool:
    """Whether anything but one character, or an optional group of bounded parts, is repeated."""
    if (
        isinstance(node, Repeat)
        and not isinstance(node.body, Char)
        and (node.high is UNBOUNDED or node.high > 1 or _freedom(node.body)[0])
    ):
        return True
    return any(_repeats_groups(part) for part in node.parts())
