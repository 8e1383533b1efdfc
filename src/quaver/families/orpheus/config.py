"""Orpheus's `config.json`: Hugging Face's Llama keys, and ours for what is not in them.

The released checkpoints carry nothing about speech tokens; their values are the defaults here.
A checkpoint with another tokenizer or codec says so under the key `orpheus`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from quaver.codecs.layout import CodeLayout
from quaver.core.errors import CheckpointError
from quaver.families.orpheus.voices import VOICES, default_voices
from quaver.nn.rope import Llama3Scaling
from quaver.nn.transformer import TransformerConfig

DEFAULT_CODEC = "hubertsiuzdak/snac_24khz"


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
    def from_dict(cls, values: dict[str, Any], default_voices: tuple[str, ...]) -> SpeechConfig:
        token_keys = {f.name for f in fields(SpeechTokens)}
        own_keys = {f.name for f in fields(cls)} - {"tokens"}
        if unknown := sorted(set(values) - token_keys - own_keys):
            raise CheckpointError(
                f"config.json, section orpheus: unknown keys {unknown}; "
                f"allowed are {sorted(token_keys | own_keys)}"
            )
        own = {"voices": default_voices} | {k: v for k, v in values.items() if k in own_keys}
        own["voices"] = tuple(own["voices"])
        tokens = SpeechTokens(**{k: v for k, v in values.items() if k in token_keys})
        return cls(tokens=tokens, **own)


@dataclass(frozen=True, slots=True)
class OrpheusConfig:
    """A whole checkpoint's configuration."""

    transformer: TransformerConfig
    vocab_size: int
    tie_word_embeddings: bool
    speech: SpeechConfig

    def __post_init__(self) -> None:
        end = self.speech.tokens.layout.end_token
        if self.vocab_size < end:
            raise CheckpointError(
                f"vocab_size is {self.vocab_size}, but the code tokens end at {end}: this is not "
                "an Orpheus checkpoint, or its config.json lacks the section 'orpheus'"
            )

    def shortened(self, positions: int) -> OrpheusConfig:
        """The same with room for at most `positions`: tables by position need no more."""
        longest = min(positions, self.transformer.max_position_embeddings)
        shape = replace(self.transformer, max_position_embeddings=longest)
        return replace(self, transformer=shape)

    @classmethod
    def from_dict(cls, config: dict[str, Any], name: str = "") -> OrpheusConfig:
        """`name` is the checkpoint's, which tells the released models' languages apart."""
        _require(config, "hidden_act", "silu")
        for key in ("attention_bias", "mlp_bias"):
            _require(config, key, False)
        try:
            transformer = _transformer(config)
            vocab_size = int(config["vocab_size"])
        except KeyError as error:
            raise CheckpointError(f"config.json lacks the key {error}") from None
        voices = default_voices(name or str(config.get("_name_or_path", "")))
        return cls(
            transformer,
            vocab_size,
            bool(config.get("tie_word_embeddings", False)),
            SpeechConfig.from_dict(config.get("orpheus", {}), voices),
        )


def _require(config: dict[str, Any], key: str, value: object) -> None:
    if config.get(key, value) != value:
        raise CheckpointError(
            f"config.json has {key} {config[key]!r}; Orpheus checkpoints have {value!r}"
        )


def _transformer(config: dict[str, Any]) -> TransformerConfig:
    heads = int(config["num_attention_heads"])
    # transformers 5 moved theta and scaling into one dictionary
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    if theta is None:
        raise KeyError("rope_theta")
    return TransformerConfig(
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        num_hidden_layers=int(config["num_hidden_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(config.get("num_key_value_heads", heads)),
        head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        rms_norm_eps=float(config["rms_norm_eps"]),
        rope_theta=float(theta),
        rope_scaling=_scaling(rope),
        max_position_embeddings=int(config["max_position_embeddings"]),
    )


def _scaling(rope: dict[str, Any]) -> Llama3Scaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise CheckpointError(f"rope_type is '{kind}'; allowed are 'default' and 'llama3'")
    return Llama3Scaling(**{f.name: rope[f.name] for f in fields(Llama3Scaling)})
