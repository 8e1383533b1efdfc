"""Endless, varied English text for training a small character-level speech model.

A model that speaks from letters learns only the letter sequences it has seen, so the texts trade
depth for breadth: hand-written sentences keep the rhythm natural, a template grammar supplies
millions of combinations, and shuffled passes over a word list pronounce every common word as often
as every other. Everything is drawn from one seeded generator, so a seed names a corpus.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from quaver.core.errors import ConfigError
from quaver.quality.panel import PLAIN_SENTENCES
from quaver.train.spoken import NUMBER_SLOTS

ALPHABET: frozenset[str] = frozenset(string.ascii_letters + string.digits + " .,?!'\"-:;()%$&")
"""Every character that `utterances` can yield."""

MAX_CHARACTERS = 230
LONG_CHARACTERS = 150
SHORT_WORDS = 4

_GLUE = (
    "the", "a", "of", "and", "to", "in", "on", "with", "for", "at", "by", "from", "or", "but",
    "is", "was", "are", "were", "his", "her", "their", "my", "our", "your", "its", "this", "that",
    "these", "those", "not", "very", "as", "into", "over", "under", "about", "no", "some", "all",
    "and the", "of the", "in the", "to the", "for a", "with a", "is not", "and then", "because of",
)  # fmt: skip
_AN = re.compile(
    r"\b([Aa]) (?=(?:[aeioAEIO]|u(?!ni[^nm]|s[aeu]|t[ei]))(?!ne\b|nce\b|u)|hour|honest|honor|heir)"
)
_SLOT = re.compile(r"\{(\w+)\}")
_NOT_LETTERS = re.compile(r"[^a-z ]+")

Part = tuple[str, bool]  # (literal text, False) or (slot name, True)


def utterances(seed: int) -> Iterator[str]:
    """Yield training texts for ever: 1 word to 230 characters each, all in `ALPHABET`.

    The same seed yields the same sequence on every machine. About one in eight has at most four
    words, one in eight has 150 characters or more, and 97 in 100 end with a full stop, a question
    mark or an exclamation mark. No text contains a sentence of `quality.panel.PLAIN_SENTENCES`,
    so that the panel stays unseen.
    """
    writer = _Writer(random.Random(seed))
    panel = [plain(sentence) for sentence in PLAIN_SENTENCES]
    while True:
        text = writer.utterance()
        if len(text) > MAX_CHARACTERS:
            continue
        key = plain(text)
        if not any(sentence in key for sentence in panel):
            yield text


def plain(text: str) -> str:
    """`text` in lower case with everything but letters and single spaces removed."""
    return " ".join(_NOT_LETTERS.sub("", text.lower()).split())


@cache
def words() -> tuple[str, ...]:
    """The committed word list: about 27,000 common lower-case words, sorted."""
    return tuple(_data("words.txt").split())


@cache
def sentences() -> tuple[str, ...]:
    """The hand-written sentences, as they stand in the data file."""
    return tuple(_data("sentences.txt").splitlines())


def _data(name: str) -> str:
    return files("quaver.train").joinpath("data").joinpath(name).read_text(encoding="ascii")


@dataclass(frozen=True)
class Grammar:
    """Named lists of choices; a choice is a sequence of literals and references to lists."""

    lists: Mapping[str, tuple[tuple[Part, ...], ...]]

    @classmethod
    def parse(cls, text: str) -> Grammar:
        """Read `[name]` sections with one choice a line; `|` parts choices on one line."""
        lists: dict[str, list[tuple[Part, ...]]] = {}
        current: list[tuple[Part, ...]] | None = None
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                current = lists.setdefault(line[1:-1], [])
            elif current is None:
                raise ConfigError(f"grammar line {line!r} stands before the first [name]")
            else:
                current.extend(_parts(choice) for choice in line.split("|"))
        return cls({name: tuple(choices) for name, choices in lists.items()})

    def unknown(self, computed: Mapping[str, object]) -> list[str]:
        """Names of slots that neither a list nor `computed` can fill, sorted."""
        used = {
            name
            for choices in self.lists.values()
            for choice in choices
            for name, is_slot in choice
            if is_slot
        }
        known = set(self.lists) | set(computed)
        return sorted(u for u in used if u not in known and u.removesuffix("_cap") not in known)


def _parts(choice: str) -> tuple[Part, ...]:
    pieces = _SLOT.split(choice)
    return tuple((piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece)


@cache
def grammar() -> Grammar:
    """The committed template grammar."""
    return Grammar.parse(_data("grammar.txt"))


@cache
def word_classes() -> Mapping[str, tuple[str, ...]]:
    """Words by likely part of speech, told from endings and from which related forms exist.

    The guess is rough on purpose: a wrong class costs a strange sentence, and strange sentences
    are still good pronunciation practice.
    """
    known = frozenset(words())
    classes: dict[str, list[str]] = {name: [] for name in _CLASS_SLOTS.values()}
    for word in words():
        if len(word) > 2:
            for name in _classes_of(word, known):
                classes[name].append(word)
    return {name: tuple(members) for name, members in classes.items()}


_CLASS_SLOTS = {
    "listnoun": "noun",
    "listplural": "plural",
    "listadj": "adjective",
    "listadv": "adverb",
    "listpast": "past",
    "listgerund": "gerund",
}
_NOUN_ENDINGS = ("tion", "sion", "ness", "ment", "ity", "ism", "ist", "ance", "ence", "ship")
_ADJECTIVE_ENDINGS = ("ful", "ous", "ive", "able", "ible", "ical", "less", "ish", "ic")


def _classes_of(word: str, known: frozenset[str]) -> Iterator[str]:
    def stem(ending: str) -> bool:
        base = word.removesuffix(ending)
        return base != word and (base in known or base + "e" in known or base[:-1] in known)

    verb = word + "ed" in known or word + "d" in known or word + "ing" in known
    if stem("ed"):
        yield "past"
    elif stem("ing"):
        yield "gerund"
    elif word.endswith("ly") and (stem("ly") or stem("ily") or stem("ally")):
        yield "adverb"
    elif word.endswith(_ADJECTIVE_ENDINGS) or word + "ly" in known or word + "est" in known:
        yield "adjective"
    elif word.endswith("s") and not word.endswith("ss") and stem("s"):
        yield "plural"
    elif word.endswith(_NOUN_ENDINGS) or (word + "s" in known and not verb):
        yield "noun"


class _Writer:
    """One seeded stream of texts. Holds the random state and the current pass over the words."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lists = grammar().lists
        self.computed: dict[str, Callable[[random.Random], str]] = dict(NUMBER_SLOTS)
        for slot, name in _CLASS_SLOTS.items():
            self.computed[slot] = _chooser(word_classes()[name])
        self.computed["listword"] = lambda _: self._next_word()
        self.deck: list[str] = []
        self.short = [s for s in sentences() if len(s.split()) <= SHORT_WORDS]
        self.kinds: tuple[tuple[float, Callable[[], str]], ...] = (
            (0.01, lambda: self._pick(sentences())),
            (0.01, lambda: self._pick(self.short)),
            (0.02, lambda: self._expand("short")),
            (0.44, lambda: self._expand("plain")),
            (0.11, lambda: self._expand("sentence")),
            (0.06, lambda: self._expand("number")),
            (0.07, lambda: self._several(2)),
            (0.10, self._long),
            (0.18, self._word_run),
        )
        self.total = sum(weight for weight, _ in self.kinds)

    def utterance(self) -> str:
        """One text, with the articles mended and, rarely, its ending or its capitals taken away."""
        at = self.rng.random() * self.total
        text = ""
        for weight, make in self.kinds:
            at -= weight
            if at < 0:
                text = make()
                break
        text = _AN.sub(r"\1n ", text)
        chance = self.rng.random()
        if chance < 0.018:
            return text.rstrip(".?!")
        return text.lower() if chance < 0.038 else text

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.random() * len(choices))]

    def _next_word(self) -> str:
        if not self.deck:
            self.deck = list(words())
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def _expand(self, name: str) -> str:
        choices = self.lists.get(name)
        if choices is None:
            make = self.computed.get(name)
            if make is not None:
                return make(self.rng)
            return _capital(self._expand(name.removesuffix("_cap")))
        choice = choices[int(self.rng.random() * len(choices))]
        return "".join(self._expand(part) if is_slot else part for part, is_slot in choice)

    def _sentence(self) -> str:
        chance = self.rng.random()
        if chance < 0.01:
            return self._pick(sentences())
        if chance < 0.2:
            return self._word_run()
        if chance < 0.25:
            return self._expand("short")
        return self._expand("sentence" if chance < 0.4 else "plain")

    def _several(self, count: int) -> str:
        return " ".join(self._sentence() for _ in range(count))

    def _long(self) -> str:
        text = self._sentence()
        while len(text) < LONG_CHARACTERS:
            longer = f"{text} {self._sentence()}"
            text = longer if len(longer) <= MAX_CHARACTERS else text
        return text

    def _word_run(self) -> str:
        """3 to 12 list words with function words and commas between, closed like a sentence."""
        random_ = self.rng.random
        parts: list[str] = []
        for _ in range(3 + int(random_() * random_() * 10)):
            chance = random_()
            if parts and chance < 0.1:
                parts[-1] += ","
            if chance > 0.5:
                parts.append(self._pick(_GLUE))
            parts.append(self._next_word())
        ending = "." if (chance := random_()) < 0.8 else "?" if chance < 0.9 else "!"
        return _capital(" ".join(parts)) + ending


def _chooser(members: Sequence[str]) -> Callable[[random.Random], str]:
    return lambda rng: members[int(rng.random() * len(members))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
