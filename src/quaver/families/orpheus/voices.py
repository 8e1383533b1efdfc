"""Voices of the released checkpoints, by the language in their names."""

from __future__ import annotations

VOICES = {
    "en": ("tara", "leah", "jess", "leo", "dan", "mia", "zac", "zoe"),
    "fr": ("pierre", "amelie", "marie"),
    "de": ("jana", "thomas", "max"),
    "ko": ("유나", "준서"),
    "hi": ("ऋतिका",),
    "zh": ("长乐", "白芷"),
    "es_it": ("javi", "sergio", "maria", "pietro", "giulia", "carlo"),
}


def default_voices(name: str) -> tuple[str, ...]:
    """Voices of a released checkpoint by its name; pretrained ones have none."""
    if "pretrain" in name:
        return ()
    for language, voices in VOICES.items():
        if f"3b-{language}-" in name:
            return voices
    return VOICES["en"]
