"""Training configuration: one TOML file, strict, one frozen dataclass a section.

The file is the recipe: everything that decides what a run makes stands in it, and nothing else
does. A key that no section knows is an error.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from quaver.core.errors import ConfigError

T = TypeVar("T")


# Window lengths and mel bands of Kumar et al. (2023), "High-Fidelity Audio Compression with
# Improved RVQGAN": short windows judge attacks, long ones pitch.
MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Speech to learn from, synthesised with flite."""

    folder: str
    voices: tuple[str, ...]
    hours: float
    seed: int = 0
    sample_rate: int = 24000
    utterances_per_shard: int = 512
    lead_seconds: float = 0.03  # silence kept before the first sound: it delays the first audio
    tail_seconds: float = 0.15


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: warm-up, constant rate, then a linear fall to zero."""

    steps: int
    learning_rate: float
    warmup_steps: int
    decay_steps: int
    validate_every: int = 500
    save_every: int = 1000

    def rate(self, step: int) -> float:
        """Learning rate at `step`."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = min(1.0, (self.steps - step) / max(1, self.decay_steps))
        return self.learning_rate * max(0.0, min(rise, fall))


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """A SNAC and how it is trained. `model` is its `config.json`."""

    model: dict[str, Any]
    schedule: Schedule
    hours: float  # of the data, from its start: a codec needs fewer than a language model
    batch: int = 32
    crop_samples: int = 16384
    discrete_from: int = 1000  # steps without codebooks first
    adversarial_from: int = 3000
    mel_scales: tuple[tuple[int, int], ...] = MEL_SCALES  # window lengths and mel bands
    weight_mel: float = 15.0
    weight_adversarial: float = 1.0
    weight_features: float = 2.0
    weight_quantisation: float = 1.0
    compile: bool = True  # on a GPU: a minute and a half once, then steps take two thirds
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LanguageModelConfig:
    """An Orpheus and how it is trained. `model` is its `config.json`."""

    model: dict[str, Any]
    schedule: Schedule
    batch_tokens: int = 65536
    weight_decay: float = 0.1
    code_weights: tuple[float, ...] = ()  # of each code of a frame in the loss; none: all alike
    average_steps: int = 0  # whose mean is kept as the weights, about; 0 keeps the last step's
    dropout_codes: float = 0.0  # share of input codes replaced at random, so that errors heal
    compile: bool = True
    seed: int = 0
    generation: dict[str, Any] = field(default_factory=dict)  # written as generation_config.json


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The whole file."""

    data: DataConfig
    codec: CodecConfig
    lm: LanguageModelConfig


def read_config(path: Path) -> TrainConfig:
    """Read and check a TOML file."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; configs/nano.toml is an example") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return _build(TrainConfig, values, path.name)


def _build(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a section, not {values!r}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{where}: unknown keys {unknown}; allowed are {sorted(known)}")
    try:
        return kind(**{k: _value(hints[k], v, f"{where}.{k}") for k, v in values.items()})
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    expected = get_origin(hint) or hint
    if expected is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], v, where) for v in value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"{where} is {value!r}; a value of type {expected.__name__} is needed")
    return value
