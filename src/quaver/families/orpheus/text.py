"""What a checkpoint reads: its alphabet, emotion tags, languages and lengths.

All of it is in `config.json`, so that text can be checked before weights are loaded.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from quaver.core.protocols import Readable
from quaver.families.orpheus.voices import language_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quaver.families.orpheus.config import SpeechConfig

# What the model card names.
TAGS = ("laugh", "chuckle", "sigh", "cough", "sniffle", "groan", "yawn", "gasp")
# Typographic characters that a model of plain ASCII reads as their plain forms.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’ʼ´′`", "'"),
        **dict.fromkeys("“”″", '"'),
        **dict.fromkeys("–—‒―−", "-"),
        "…": "...",
        "\u00a0": " ",
    }
)
_TAGS = re.compile(rf"<(?:{'|'.join(TAGS)})>")
_SILENT = ("Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp")  # Unicode's categories without a sound or sign
_LETTERS = ("L", "M")
# Where something was left out: between words, or a letter, perhaps within a word.
_GAP, _HOLE = "\x00", "\x01"


class OrpheusText:
    """Text as one checkpoint reads it."""

    def __init__(self, config: SpeechConfig) -> None:
        self._config = config
        self._letters = frozenset(config.alphabet or "")

    @property
    def voices(self) -> Sequence[str]:
        return self._config.voices

    @property
    def reads_tags(self) -> bool:
        """Whether emotion tags such as <laugh> mean something: to models of bytes they may not."""
        return not self._config.alphabet or "<" in self._config.alphabet

    @property
    def tags(self) -> Sequence[str]:
        return TAGS if self.reads_tags else ()

    @property
    def comfortable_chars(self) -> int:
        return self._config.comfortable_chars

    @property
    def alphabet(self) -> str | None:
        return self._config.alphabet

    def language(self, voice: str | None) -> str:
        return self._config.language or language_of(self.voices, voice)

    def readable(self, text: str) -> Readable:
        """Text in the alphabet: as it is, in plain forms (é as e), in the other case, or left out.

        Invisible characters and marks on letters go without being counted. A tag that the model
        does not read is left out whole. Without an alphabet all text is readable.
        """
        if self.alphabet is None or self._letters.issuperset(text):
            return Readable(text)
        left_out: list[str] = []
        parts = []
        end = 0
        for tag in () if self.reads_tags else _TAGS.finditer(text):
            parts += [self._in_alphabet(text[end : tag.start()], left_out), _GAP]
            left_out.append(tag[0])
            end = tag.end()
        parts.append(self._in_alphabet(text[end:], left_out))
        return Readable(_close_gaps("".join(parts)), tuple(left_out))

    def _in_alphabet(self, text: str, left_out: list[str]) -> str:
        """Put what cannot be read on the list `left_out`, and leave a gap or a hole for it."""
        parts = []
        for character in unicodedata.normalize("NFC", text):
            form = self._form(character)
            if form is None:
                left_out.append(character)
                parts.append(_HOLE if unicodedata.category(character)[0] in _LETTERS else _GAP)
            else:
                parts.append(form)
        return "".join(parts)

    def _form(self, character: str) -> str | None:
        """How the alphabet writes a character; None if it cannot."""
        if character in self._letters:
            return character
        plain = unicodedata.normalize("NFKD", character.translate(_PLAIN))
        plain = "".join(c for c in plain if c in self._letters or not unicodedata.combining(c))
        for form in (plain, plain.casefold(), plain.upper()):
            if form.strip() and self._letters.issuperset(form):
                return form
        if unicodedata.category(character) in _SILENT:
            return " " if character.isspace() else ""
        return None


def _close_gaps(text: str) -> str:
    """Put a space where something was left out, but not before a stop, at an end or in a word."""
    text = re.sub(rf"(?<=\w){_HOLE}+(?=\w)", "", text).replace(_HOLE, _GAP)
    text = re.sub(rf"[{_GAP}\s]*{_GAP}[{_GAP}\s]*(?=[.,;:!?)]|$)", "", text)
    text = re.sub(rf"[{_GAP}\s]*{_GAP}[{_GAP}\s]*", " ", text)
    return re.sub(r"\s{2,}", " ", text).strip()
