"""Voices of the released checkpoints, by the language in their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

VOICES = {
    "en": ("tara", "leah", "jess", "leo", "dan", "mia", "zac", "zoe"),
    "fr": ("pierre", "amelie", "marie"),
    "de": ("jana", "thomas", "max"),
    "ko": ("유나", "준서"),
    "hi": ("ऋतिका",),
    "zh": ("长乐", "白芷"),
    "es_it": ("javi", "sergio", "maria", "pietro", "giulia", "carlo"),
}
_ITALIAN = ("pietro", "giulia", "carlo")  # of the model that speaks Spanish and Italian


def language_of(voices: Sequence[str], voice: str | None) -> str:
    """Return the ISO 639-1 code of what `voice` speaks, in a model with these `voices`.

    Names tell a language only in a released model's own set: a fine-tune's "max" may speak any.
    """
    if voice in _ITALIAN and tuple(voices) == VOICES["es_it"]:
        return "it"
    for language, released in VOICES.items():
        if tuple(voices) == released:
            return language.partition("_")[0]
    return "en"


def default_voices(name: str) -> tuple[str, ...]:
    """Voices of a released checkpoint by its name; pretrained ones have none."""
    if "pretrain" in name:
        return ()
    for language, voices in VOICES.items():
        if f"3b-{language}-" in name:
            return voices
    return VOICES["en"]
