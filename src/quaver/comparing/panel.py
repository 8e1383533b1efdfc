"""What both sides say: texts, voices in turn, seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quaver.core.errors import InputError
from quaver.quality.panel import PLAIN_SENTENCES, TAGGED_SENTENCES
from quaver.text.reading import read_text

if TYPE_CHECKING:
    from quaver.core.protocols import TextFamily

QUICK = 10  # texts
MAX_TEXTS, MAX_CHARS, MAX_SEEDS = 2000, 400, 20


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance to make. `run` tells a text's seeds apart."""

    number: int
    text: str
    voice: str | None
    run: int

    @property
    def key(self) -> str:
        return f"{self.number:04d}-{self.run}"


@dataclass(frozen=True, slots=True)
class Panel:
    """Texts, each read `runs` times, by the voices in turn."""

    texts: tuple[str, ...]
    voices: tuple[str, ...]
    runs: int = 1

    def spoken_by(self, family: TextFamily) -> Panel:
        """The same texts in the words that both sides read and judges expect.

        Raises InputError for a text that the model cannot read.
        """
        texts = []
        for item in replace(self, runs=1):
            try:
                texts.append(read_text(item.text, family, item.voice).text)
            except InputError as error:
                raise InputError(f"text {item.number + 1} of the panel: {error}") from None
        return replace(self, texts=tuple(dict.fromkeys(texts)))

    def __iter__(self) -> Iterator[Item]:
        """Text by text, so that a part of a panel is a smaller panel."""
        for number, text in enumerate(self.texts):
            voice = self.voices[number % len(self.voices)] if self.voices else None
            for run in range(self.runs):
                yield Item(number, text, voice, run)

    def __len__(self) -> int:
        return len(self.texts) * self.runs


def make_panel(
    voices: Sequence[str], file: Path | None, quick: bool, runs: int, tags: bool = False
) -> Panel:
    """Our sentences, with those that have emotion `tags` if the model knows them, or a file's, one
    a line. InputError for a file that has none or too much."""
    if not 1 <= runs <= MAX_SEEDS:
        raise InputError(f"--seeds is {runs}; allowed is 1 to {MAX_SEEDS}")
    texts = PLAIN_SENTENCES if file is None else tuple(_lines(file))
    texts = texts[:QUICK] if quick else texts
    return Panel(texts + TAGGED_SENTENCES if tags and file is None else texts, tuple(voices), runs)


def _lines(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8") as opened:
            data = opened.read(MAX_TEXTS * MAX_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file} as UTF-8 text ({error}); give another file") from None
    lines = [line.strip() for line in data.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{file} has no text; give one text a line")
    if len(lines) > MAX_TEXTS or (long := [line for line in lines if len(line) > MAX_CHARS]):
        given = (
            f"{len(lines)} texts" if len(lines) > MAX_TEXTS else f"one of {len(long[0])} letters"
        )
        raise InputError(f"{file} has {given}; at most {MAX_TEXTS} of {MAX_CHARS} are allowed")
    return list(dict.fromkeys(lines))
