"""Parts of a pattern, and how each is matched without backtracking."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

UNBOUNDED = None
BUDGET = 2_000_000  # positions that all matches of a `Budget` may visit

Test = Callable[[str], bool]


class Budget:
    """How much work matching may take, all in all. ValueError when it is spent."""

    def __init__(self, steps: int = BUDGET) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise ValueError("it takes too long to match")


class Node(ABC):
    """A part of a pattern: from positions where it may begin to those where it may end."""

    @abstractmethod
    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        """Positions in `text` where it may end, if it begins at one of `starts`."""

    def parts(self) -> tuple[Node, ...]:
        return ()


@dataclass(frozen=True)
class Char(Node):
    """One character that passes a test."""

    test: Test

    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        budget.spend(1 + len(starts))
        return {at + 1 for at in starts if at < len(text) and self.test(text[at])}


@dataclass(frozen=True)
class Anchor(Node):
    """No character, where the text around a position passes a test."""

    test: Callable[[str, int], bool]

    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        budget.spend(1 + len(starts))
        return {at for at in starts if self.test(text, at)}


@dataclass(frozen=True)
class Look(Node):
    """Lookahead: what follows must match `body`, or must not."""

    body: Node
    wanted: bool

    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        return {at for at in starts if bool(self.body.ends(text, {at}, budget)) is self.wanted}

    def parts(self) -> tuple[Node, ...]:
        return (self.body,)


@dataclass(frozen=True)
class Row(Node):
    """Parts one after the other."""

    items: tuple[Node, ...]

    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        for item in self.items:
            starts = item.ends(text, starts, budget)
        return starts

    def parts(self) -> tuple[Node, ...]:
        return self.items


@dataclass(frozen=True)
class Choice(Node):
    """One of several parts."""

    items: tuple[Node, ...]

    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        return set[int]().union(*(item.ends(text, starts, budget) for item in self.items))

    def parts(self) -> tuple[Node, ...]:
        return self.items


@dataclass(frozen=True)
class Repeat(Node):
    """A part `low` to `high` times; `high` None is any number."""

    body: Node
    low: int
    high: int | None
    possessive: bool = False

    def ends(self, text: str, starts: set[int], budget: Budget) -> set[int]:
        if self.possessive:
            raise ValueError("possessive repetition is not understood")
        for _ in range(self.low):
            after = self.body.ends(text, starts, budget)
            if after == starts:  # and so on for ever
                break
            starts = after
        found, new, count = set(starts), starts, self.low
        while new and (self.high is UNBOUNDED or count < self.high):
            new = self.body.ends(text, new, budget) - found
            found |= new
            count += 1
        return found

    def parts(self) -> tuple[Node, ...]:
        return (self.body,)
