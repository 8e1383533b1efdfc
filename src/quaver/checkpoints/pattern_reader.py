"""The text of a pattern, parsed into its parts."""

from __future__ import annotations

import unicodedata

from quaver.checkpoints.pattern_nodes import (
    Anchor,
    Char,
    Choice,
    Look,
    Node,
    Repeat,
    Row,
    Test,
)

MAX_PATTERN = 1000  # characters
MAX_REPEATS = 1000  # of {m,n}
MAX_DEPTH = 50  # of groups

_ANCHORS = {
    "^": Anchor(lambda text, at: at == 0),
    "$": Anchor(lambda text, at: at == len(text) or text[at:] == "\n"),
}


def parse(source: str) -> Node:
    """The tree of a pattern. ValueError for what is not understood."""
    if len(source) > MAX_PATTERN:
        raise ValueError(f"it has {len(source)} characters; at most {MAX_PATTERN} are allowed")
    reader = _Reader(source)
    node = reader.choice(0)
    if reader.rest:
        raise ValueError("a ) has no (")
    return node


class _Reader:
    """A recursive-descent parser."""

    def __init__(self, source: str) -> None:
        self._source, self._at, self._folds = source, 0, False

    @property
    def rest(self) -> str:
        return self._source[self._at :]

    def choice(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise ValueError(f"its groups are more than {MAX_DEPTH} deep")
        items = [self._row(depth)]
        while self._take("|"):
            items.append(self._row(depth))
        return items[0] if len(items) == 1 else Choice(tuple(items))

    def _row(self, depth: int) -> Node:
        items = []
        while self.rest and self.rest[0] not in "|)":
            items.append(self._repeated(self._atom(depth)))
        return items[0] if len(items) == 1 else Row(tuple(items))

    def _repeated(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        lazy, possessive = self._take("?"), self._take("+")
        if (lazy and possessive) or self._bounds() is not None:
            raise ValueError("a repetition is repeated")
        return Repeat(node, *bounds, possessive=possessive)

    def _bounds(self) -> tuple[int, int | None] | None:
        for mark, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(mark):
                return bounds
        if not self.rest.startswith("{"):
            return None
        inside, closed, _ = self.rest[1:].partition("}")
        low, comma, high = inside.partition(",")
        digits = (low + high).isascii() and (low + high).isdigit() and len(inside) <= 20
        if not closed or not digits or not (low or high):
            if closed and inside.strip("0123456789,"):
                return None  # a brace that is a character
            raise ValueError("the numbers in {} are not understood")
        self._at += len(inside) + 2
        least = int(low or 0)
        most = int(high) if high else (None if comma else least)
        if least > MAX_REPEATS or (most is not None and not least <= most <= MAX_REPEATS):
            raise ValueError(f"the numbers in {{}} must rise, up to {MAX_REPEATS}")
        return least, most

    def _atom(self, depth: int) -> Node:
        char = self._next()
        if char == "(":
            return self._group(depth)
        if char == "[":
            return Char(self._class())
        if char == ".":
            return Char(lambda c: c != "\n")
        if char in "*+?":
            raise ValueError(f"{char} repeats nothing")
        if char == "\\":
            return self._escape()
        return _ANCHORS.get(char) or Char(self._same(char))

    def _group(self, depth: int) -> Node:
        wanted: bool | None = None
        folds = self._folds
        if self._take("?"):
            if self._take("=") or self._take("!"):
                wanted = self._source[self._at - 1] == "="
            elif self._take("i:"):
                self._folds = True
            elif self._at == 2 and self._take("i)"):  # of the whole pattern
                self._folds = True
                return Row(())
            elif self._take("P<"):
                name, closed, _ = self.rest.partition(">")
                if not closed or not name.isidentifier():
                    raise ValueError("the name of a group is not understood")
                self._at += len(name) + 1
            elif not self._take(":"):
                raise ValueError(f"(?{self.rest[:3]} is not understood")
        node = self.choice(depth + 1)
        if not self._take(")"):
            raise ValueError("a ( has no )")
        self._folds = folds
        return node if wanted is None else Look(node, wanted)

    def _escape(self) -> Node:
        char = self._next()
        if char in "bB":
            inside = char == "b"
            return Anchor(lambda text, at: _at_border(text, at) is inside)
        if char == "A":
            return Anchor(lambda text, at: at == 0)
        if char in "zZ":
            return Anchor(lambda text, at: at == len(text))
        return Char(self._kind(char))

    def _class(self) -> Test:
        negated = self._take("^")
        tests = [self._member()]  # where a ] is a character
        while not self._take("]"):
            tests.append(self._member())
        return lambda c: any(test(c) for test in tests) is not negated

    def _member(self) -> Test:
        first = self._next()
        if first == "[":
            raise ValueError("a class within a class is not understood")
        if first == "\\":
            escaped = self._next()
            if escaped in _KINDS or escaped in "pP":
                return self._kind(escaped)
            first = "\b" if escaped == "b" else self._literal(escaped)
        if self.rest.startswith("&&"):
            raise ValueError("&& is not understood")
        if not self.rest.startswith("-") or self.rest.startswith("-]"):
            return self._same(first)
        self._at += 1
        last = self._next()
        if last == "\\":
            last = self._literal(self._next())
        if last < first:
            raise ValueError(f"the range {first}-{last} runs backwards")
        if self._folds:
            low, high = first, last
            return lambda c: any(low <= v <= high for v in (c, c.lower(), c.upper()))
        return lambda c: first <= c <= last

    def _kind(self, char: str) -> Test:
        """An escape that stands for one character or for a kind of them."""
        if char in _KINDS:
            return _KINDS[char]
        if char in "pP":
            return self._property(char == "P")
        return self._same(self._literal(char))

    def _property(self, negated: bool) -> Test:
        if not self._take("{"):
            raise ValueError("\\p needs {}")
        name, closed, _ = self.rest.partition("}")
        self._at += len(name) + 1
        if not closed or not name.isidentifier():
            raise ValueError("the name in \\p{} is not understood")
        if name not in _CATEGORIES:
            return _cannot_match(name)
        return lambda c: unicodedata.category(c).startswith(name) is not negated

    def _literal(self, char: str) -> str:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char in "xu":
            count = 2 if char == "x" else 4
            digits = self.rest[:count]
            if len(digits) < count or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise ValueError(f"\\{char} needs {count} hexadecimal digits")
            self._at += count
            return chr(int(digits, 16))
        if char.isascii() and char.isalnum():
            raise ValueError(f"\\{char} is not understood")
        return char

    def _same(self, char: str) -> Test:
        if self._folds:
            folded = char.casefold()
            return lambda c: c.casefold() == folded
        return lambda c: c == char

    def _next(self) -> str:
        if not self.rest:
            raise ValueError("it ends too early")
        self._at += 1
        return self._source[self._at - 1]

    def _take(self, wanted: str) -> bool:
        found = self._source.startswith(wanted, self._at)
        self._at += len(wanted) * found
        return found


def _cannot_match(name: str) -> Test:
    """A script or another property: fine in a pattern that others match."""

    def test(char: str) -> bool:
        raise ValueError(f"\\p{{{name[:20]}}} is not understood")

    return test


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _at_border(text: str, at: int) -> bool:
    before = at > 0 and _is_word(text[at - 1])
    after = at < len(text) and _is_word(text[at])
    return before is not after


_KINDS: dict[str, Test] = {
    "d": lambda c: unicodedata.category(c) == "Nd",
    "D": lambda c: unicodedata.category(c) != "Nd",
    "w": _is_word,
    "W": lambda c: not _is_word(c),
    "s": str.isspace,
    "S": lambda c: not c.isspace(),
}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}
_CATEGORIES = frozenset(
    [
        "L",
        "Lu",
        "Ll",
        "Lt",
        "Lm",
        "Lo",
        "M",
        "Mn",
        "Mc",
        "Me",
        "N",
        "Nd",
        "Nl",
        "No",
        "P",
        "Pc",
        "Pd",
        "Ps",
        "Pe",
        "Pi",
        "Pf",
        "Po",
        "S",
        "Sm",
        "Sc",
        "Sk",
        "So",
        "Z",
        "Zs",
        "Zl",
        "Zp",
        "C",
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
    ]
)
