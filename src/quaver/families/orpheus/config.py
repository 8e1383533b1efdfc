"""Orpheus's `config.json`: Hugging Face's Llama keys, and ours for what is not in them.

The released checkpoints carry nothing about speech tokens; their values are the defaults here.
A checkpoint with another tokenizer or codec says so under the key `orpheus`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath, PureWindowsPath
from typing import Any

from quaver.codecs.layout import CodeLayout
from quaver.core.errors import CheckpointError
from quaver.core.section import Section
from quaver.core.voices import MAX_VOICE, MAX_VOICES
from quaver.families.orpheus.voices import VOICES, default_voices
from quaver.nn.rope import read_rope
from quaver.nn.transformer import TransformerConfig

DEFAULT_CODEC = "hubertsiuzdak/snac_24khz"
# The most that a configuration may ask for: several times the largest published Llama, and little
# enough that a model of it is built on the meta device in seconds.
MAX_VOCABULARY = 2**22
MAX_LAYERS = 512
MAX_WIDTH = 2**17
MAX_HEADS = 1024
MAX_HEAD_DIM = 1024
MAX_POSITIONS = 2**27

MAX_CODES = 2**18  # of a codebook
_LANGUAGE = re.compile("[a-z]{2,3}")
_OWN = {"tokens"}  # a field that is no key


@dataclass(frozen=True, slots=True)
class SpeechTokens:
    """Token ids of the prompt and of speech. The defaults are the released Orpheus-3B's.

    Control tokens follow each other from `custom_token_base` (`<custom_token_0>`), and the code
    tokens start ten after it.
    """

    begin_of_text: int = 128000
    end_of_text: int = 128009
    custom_token_base: int = 128256
    codebook_size: int = 4096

    @property
    def start_of_speech(self) -> int:
        return self.custom_token_base + 1

    @property
    def end_of_speech(self) -> int:
        return self.custom_token_base + 2

    @property
    def start_of_human(self) -> int:
        return self.custom_token_base + 3

    @property
    def end_of_human(self) -> int:
        return self.custom_token_base + 4

    @property
    def start_of_ai(self) -> int:
        return self.custom_token_base + 5

    @property
    def end_of_ai(self) -> int:
        return self.custom_token_base + 6

    @property
    def layout(self) -> CodeLayout:
        return CodeLayout(self.custom_token_base + 10, self.codebook_size)


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """The section `orpheus` of `config.json`; every key has the released models' value."""

    tokens: SpeechTokens = SpeechTokens()
    voices: tuple[str, ...] = VOICES["en"]
    codec: str = DEFAULT_CODEC  # a folder inside the checkpoint, or a hub id
    alphabet: str | None = None  # characters that the model knows; None is all of Unicode
    language: str | None = None  # ISO 639-1; None goes by the voices
    comfortable_chars: int = 200  # about 14 s of speech, the length of the training clips

    @classmethod
    def read(cls, section: Section, default_voices: tuple[str, ...]) -> SpeechConfig:
        """Raises CheckpointError for unknown keys and for values that are not allowed."""
        section.only({f.name for f in fields(SpeechTokens)} | {f.name for f in fields(cls)} - _OWN)
        default = cls()
        codec = section.text("codec", 200, default.codec)
        if _leaves(codec):
            allowed = "the name of a folder inside the checkpoint, or a hub id as org/name"
            raise section.error("codec", codec, allowed)
        return cls(
            tokens=_tokens(section),
            voices=section.texts("voices", MAX_VOICE, MAX_VOICES, default_voices),
            codec=codec,
            alphabet=section.text("alphabet", 100_000, None),
            language=_language(section),
            comfortable_chars=section.whole(
                "comfortable_chars", 10, 2000, default.comfortable_chars
            ),
        )


@dataclass(frozen=True, slots=True)
class OrpheusConfig:
    """A whole checkpoint's configuration. `notes` say what was guessed, for its user to read."""

    transformer: TransformerConfig
    vocab_size: int
    tie_word_embeddings: bool
    speech: SpeechConfig
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        end = self.speech.tokens.layout.end_token
        if self.vocab_size < end:
            raise CheckpointError(
                f"vocab_size is {self.vocab_size}, but the code tokens end at {end}: this is not "
                "an Orpheus checkpoint, or its config.json lacks the section 'orpheus'"
            )
        for key in ("begin_of_text", "end_of_text"):
            if (token := getattr(self.speech.tokens, key)) >= self.vocab_size:
                raise CheckpointError(
                    f"config.json has orpheus.{key} {token}, and vocab_size is {self.vocab_size}; "
                    "allowed: ids below it"
                )

    def shortened(self, positions: int) -> OrpheusConfig:
        """The same with room for at most `positions`: tables by position need no more."""
        longest = min(positions, self.transformer.max_position_embeddings)
        shape = replace(self.transformer, max_position_embeddings=longest)
        return replace(self, transformer=shape)

    def with_voices(self, voices: tuple[str, ...]) -> OrpheusConfig:
        """The same with other voices, which a fine-tune was trained with."""
        return replace(self, speech=replace(self.speech, voices=voices))

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], name: str = "", file: str = "config.json"
    ) -> OrpheusConfig:
        """Read the values of `file`. `name` is the checkpoint's, which tells the released models'
        languages apart. Raises CheckpointError."""
        section = Section(config, file)
        _require(section, "hidden_act", "silu")
        for key in ("attention_bias", "mlp_bias"):
            _require(section, key, False)
        transformer, notes = _transformer(section)
        voices = default_voices(name or section.text("_name_or_path", 1000, "", shortest=0))
        return cls(
            transformer,
            section.whole("vocab_size", 1, MAX_VOCABULARY),
            section.flag("tie_word_embeddings", False),
            SpeechConfig.read(section.section("orpheus"), voices),
            notes,
        )


def _tokens(section: Section) -> SpeechTokens:
    default = SpeechTokens()
    ids = {
        key: section.whole(key, 0, MAX_VOCABULARY, getattr(default, key))
        for key in ("begin_of_text", "end_of_text", "custom_token_base")
    }
    size = section.whole("codebook_size", 2, MAX_CODES, default.codebook_size)
    return SpeechTokens(**ids, codebook_size=size)


def _language(section: Section) -> str | None:
    """The language that numbers and the like are read in; None goes by the voices."""
    language = section.text("language", 200, None)
    if language is not None and not _LANGUAGE.fullmatch(language):
        allowed = 'null or a code of two or three small letters (ISO 639), such as "de"'
        raise section.error("language", language, allowed)
    return language


def _leaves(codec: str) -> bool:
    """Whether a path of a config could reach outside its folder."""
    return any(
        path.is_absolute() or path.drive or path.root or ".." in path.parts or codec[0] == "~"
        for path in (PurePath(codec), PureWindowsPath(codec))
    )


def _require(section: Section, key: str, value: object) -> None:
    if section.has(key) and section.values[key] != value:
        raise section.error(key, section.values[key], f"{value!r}, as Orpheus checkpoints have")


def _transformer(section: Section) -> tuple[TransformerConfig, tuple[str, ...]]:
    """The stack's shape, and notes."""
    width = section.whole("hidden_size", 1, MAX_WIDTH)
    heads = section.whole("num_attention_heads", 1, MAX_HEADS)
    kv_heads = section.whole("num_key_value_heads", 1, MAX_HEADS, heads)
    if heads % kv_heads:
        raise section.error("num_key_value_heads", kv_heads, f"divisors of the {heads} heads")
    if not section.has("head_dim") and width % heads:
        raise section.error("hidden_size", width, f"multiples of the {heads} heads")
    head_dim = section.whole("head_dim", 2, MAX_HEAD_DIM, width // heads, even=True)
    if head_dim % 2 or not 2 <= head_dim <= MAX_HEAD_DIM:
        allowed = f"even numbers of 2 to {MAX_HEAD_DIM} for each of the {heads} heads"
        raise section.error("hidden_size", width, allowed)
    rope = read_rope(section)
    shape = TransformerConfig(
        hidden_size=width,
        intermediate_size=section.whole("intermediate_size", 1, 8 * MAX_WIDTH),
        num_hidden_layers=section.whole("num_hidden_layers", 1, MAX_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=section.number("rms_norm_eps", 0.0, 0.1, above=True),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        max_position_embeddings=section.whole("max_position_embeddings", 64, MAX_POSITIONS),
    )
    return shape, rope.notes
