"""Text to prompt tokens, by ids.

    start_of_human BOS "voice: text" end_of_text end_of_human start_of_ai start_of_speech

One BOS, after start-of-human, as in training. Passing the prompt through a string, as others do,
lets the tokenizer add a second one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from quaver.core.errors import InputError
from quaver.core.panics import panics_as
from quaver.core.protocols import Prompt, Reference
from quaver.families.orpheus.text import TAGS, OrpheusText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from quaver.families.orpheus.config import SpeechConfig

FRAMES_PER_SECOND = 24000 / 2048
_TAG = re.compile(r"<([a-z][a-z_-]{1,30})>")
MAX_TEXT = 10_000  # characters that are encoded at once; segments have some hundred


class OrpheusPrompts(OrpheusText):
    """Prompts, voices and lengths of one checkpoint: the family as the engine's caller sees it."""

    name = "orpheus"

    def __init__(self, config: SpeechConfig, tokenizer: Tokenizer) -> None:
        super().__init__(config)
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        tokens = config.tokens
        self._own = range(tokens.custom_token_base, tokens.layout.end_token)
        spoken = {f"<{tag}>" for tag in TAGS} | set(config.voices)
        self._control = {
            number
            for number, token in added.items()
            if token.special and token.content not in spoken
        } | {tokens.begin_of_text, tokens.end_of_text}
        # tags that a fine-tune added to the tokenizer, beside those that the model card names
        found = [_TAG.fullmatch(t.content) for n, t in added.items() if not self._controls(n)]
        self._tags = tuple(dict.fromkeys((*TAGS, *(each[1] for each in found if each))))

    @property
    def tags(self) -> Sequence[str]:
        return self._tags if self.reads_tags else ()

    def prompt(
        self, text: str, voice: str | None = None, reference: Reference | None = None
    ) -> Prompt:
        """The prompt for one segment. Without a voice (pretrained and single-speaker models, and
        cloning) there is no "voice: " prefix."""
        if reference is not None:
            return self._cloning_prompt(text, reference)
        if voice is not None and voice not in self.voices:
            known = ", ".join(self.voices) or "none: this model takes no voice"
            raise InputError(
                f"unknown voice '{voice[:80]}'; this model's voices are {known}; if it was trained "
                "with others, name them when it is loaded: --voices NAME,NAME, or voices= in Python"
            )
        return Prompt(self._turn(text if voice is None else f"{voice}: {text}"))

    def max_frames(self, text: str) -> int:
        """Three seconds and a fifth of a second per byte of text: twice as slow as slow speech,
        in scripts with one, two or three bytes a sound."""
        return int((3.0 + len(text.encode()) / 5.0) * FRAMES_PER_SECOND)

    def _cloning_prompt(self, text: str, reference: Reference) -> Prompt:
        tokens = self._config.tokens
        codes = tokens.layout.to_tokens(reference.frames).flatten().tolist()
        spoken = [
            (position, code)
            for frame in reference.frames.tolist()
            for position, code in enumerate(frame)
        ]
        turn = (*self._turn(reference.text), *codes, tokens.end_of_speech, tokens.end_of_ai)
        # the stop choice follows the codes of position 0, and the reference's end said it once
        return Prompt((*turn, *self._turn(text)), (*spoken, (0, tokens.codebook_size)))

    def _turn(self, text: str) -> tuple[int, ...]:
        tokens = self._config.tokens
        return (
            tokens.start_of_human,
            tokens.begin_of_text,
            *self._encode(text),
            tokens.end_of_text,
            tokens.end_of_human,
            tokens.start_of_ai,
            tokens.start_of_speech,
        )

    def _encode(self, text: str) -> list[int]:
        """Tokens of a text. InputError for text that becomes control tokens: special ones, and
        those that prompts and speech are made of. Added words and emotion tags are text."""
        if len(text) > MAX_TEXT:
            raise InputError(
                f"a piece of the text has {len(text):,} characters; at most {MAX_TEXT:,} are "
                "allowed: split it"
            )
        with panics_as(InputError, "the model's tokenizer fails on this text; change the text"):
            try:
                ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
            except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
                raise InputError(
                    f"the model's tokenizer cannot read this text ({str(error)[:200]}); change it"
                ) from None
        if found := [i for i in ids if self._controls(i)]:
            raise InputError(
                f"the text contains the control token {self._tokenizer.id_to_token(found[0])}; "
                "remove it"
            )
        return ids

    def _controls(self, token: int) -> bool:
        return token in self._control or token in self._own
