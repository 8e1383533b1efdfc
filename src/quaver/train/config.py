"""Training configuration: one TOML file, strict, one frozen dataclass a section.

The file is the recipe: everything that decides what a run makes stands in it, and nothing else
does. A key that no section knows is an error, and so is a value of another type or out of range.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from quaver.core.errors import ConfigError, InputError
from quaver.core.textfile import read_toml
from quaver.core.types import SamplingParams

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; `low` itself is allowed unless `above`."""

    low: float
    high: float
    above: bool = False

    def allows(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"{'above' if self.above else 'from'} {self.low:,g} {self._to} {self.high:,.15g}"

    @property
    def _to(self) -> str:
        return "up to" if self.above else "to"


@dataclass(frozen=True, slots=True)
class Length:
    """How many characters a text has, or entries a list."""

    low: int
    high: int

    def allows(self, value: Any) -> bool:
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"of {self.low} to {self.high:,} entries"


Text = Annotated[str, Length(1, 4096)]
Count = Annotated[int, Range(1, 10**9)]
StepNumber = Annotated[int, Range(0, 10**9)]
Seed = Annotated[int, Range(0, 2**32)]
Hours = Annotated[float, Range(0, 10**5, above=True)]
Seconds = Annotated[float, Range(0, 10)]
Weight = Annotated[float, Range(0, 10**6)]
Scale = tuple[Annotated[int, Range(16, 2**16)], Annotated[int, Range(1, 2**15)]]
NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    dict: "a section",
}


# Window lengths and mel bands of Kumar et al. (2023), "High-Fidelity Audio Compression with
# Improved RVQGAN": short windows judge attacks, long ones pitch.
MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Speech to learn from, synthesised with flite."""

    folder: Text
    voices: Annotated[tuple[Text, ...], Length(1, 1000)]
    hours: Hours
    seed: Seed = 0
    sample_rate: Annotated[int, Range(8000, 192_000)] = 24000
    utterances_per_shard: Annotated[int, Range(1, 10**6)] = 512
    lead_seconds: Seconds = 0.03  # silence kept before the first sound: it delays the first audio
    tail_seconds: Seconds = 0.15


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: warm-up, constant rate, then a linear fall to zero."""

    steps: Count
    learning_rate: Annotated[float, Range(0, 10, above=True)]
    warmup_steps: StepNumber
    decay_steps: StepNumber
    validate_every: Count = 500
    save_every: Count = 1000

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
    hours: Hours  # of the data, from its start: a codec needs fewer than a language model
    batch: Annotated[int, Range(1, 65_536)] = 32
    crop_samples: Annotated[int, Range(64, 10**7)] = 16384
    discrete_from: StepNumber = 1000  # steps without codebooks first
    adversarial_from: StepNumber = 3000
    # window lengths and mel bands
    mel_scales: Annotated[tuple[Scale, ...], Length(1, 100)] = MEL_SCALES
    weight_mel: Weight = 15.0
    weight_adversarial: Weight = 1.0
    weight_features: Weight = 2.0
    weight_quantisation: Weight = 1.0
    compile: bool = True  # on a GPU: a minute and a half once, then steps take two thirds
    seed: Seed = 0

    def __post_init__(self) -> None:
        longest = max(window for window, _ in self.mel_scales)
        if self.crop_samples <= longest // 2:
            raise ConfigError(
                f"codec.crop_samples is {self.crop_samples}; with a window of {longest} in "
                f"codec.mel_scales it must be more than {longest // 2}"
            )


@dataclass(frozen=True, slots=True)
class LanguageModelConfig:
    """An Orpheus and how it is trained. `model` is its `config.json`."""

    model: dict[str, Any]
    schedule: Schedule
    batch_tokens: Annotated[int, Range(1, 10**8)] = 65536
    weight_decay: Annotated[float, Range(0, 10)] = 0.1
    code_weights: tuple[Weight, ...] = ()  # of each code of a frame in the loss; none: all alike
    average_steps: StepNumber = 0  # whose mean is kept as the weights, about; 0 keeps the last's
    # share of input codes replaced at random, so that errors heal
    dropout_codes: Annotated[float, Range(0, 1)] = 0.0
    compile: bool = True
    seed: Seed = 0
    generation: dict[str, Any] = field(default_factory=dict)  # written as generation_config.json

    def __post_init__(self) -> None:
        try:
            SamplingParams().override(self.generation)
        except (InputError, TypeError) as error:
            raise ConfigError(f"lm.generation: {error}") from None


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The whole file."""

    data: DataConfig
    codec: CodecConfig
    lm: LanguageModelConfig


def read_config(path: Path) -> TrainConfig:
    """Read and check a TOML file. Raises ConfigError, which names the key and what it may be."""
    try:
        path.stat()
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; configs/nano.toml is an example") from None
    except OSError:
        pass  # told when it is read
    return _build(TrainConfig, read_toml(path), path.name, "")


def _build(kind: type[T], values: Any, file: str, section: str) -> T:
    """A dataclass of a table; `section` is its name in the file, with a dot after it."""
    where = f"{file}, section {section.rstrip('.')}" if section else file
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {_shown(values)}; a section is needed")
    hints = get_type_hints(kind, include_extras=True)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{where}: unknown keys {unknown}; allowed are {sorted(known)}")
    needed = {
        name
        for name, each in known.items()
        if each.default is MISSING and each.default_factory is MISSING
    }
    if missing := sorted(needed - set(values)):
        raise ConfigError(f"{where}: the keys {missing} are missing")
    built = {k: _value(hints[k], v, file, section + k) for k, v in values.items()}
    try:
        return kind(**built)
    except ConfigError as error:  # of values that do not fit together
        raise ConfigError(f"{file}: {error}") from None


def _value(hint: Any, value: Any, file: str, key: str) -> Any:
    """A value of the hinted type and within the hinted limits."""
    limits: tuple[Range | Length, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *found = get_args(hint)
        limits = tuple(found)
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, file, f"{key}.")
    expected = get_origin(hint) or hint
    number = isinstance(value, int | float) and not isinstance(value, bool)
    given = {
        int: isinstance(value, int) and number,
        float: number,
        bool: isinstance(value, bool),
        tuple: isinstance(value, list),
    }.get(expected, isinstance(value, expected))
    if not given or not all(limit.allows(value) for limit in limits):
        allowed = " ".join([NAMES.get(expected, "true or false"), *map(str, limits)])
        raise ConfigError(f"{file}: {key} is {_shown(value)}; allowed is {allowed}")
    if expected is tuple:
        return _items(get_args(hint), value, file, key)
    if expected is dict:
        _check_json(value, file, key)
    return float(value) if expected is float else value


def _items(hints: tuple[Any, ...], values: list[Any], file: str, key: str) -> tuple[Any, ...]:
    """A list as a tuple: of any length where the hint ends in `...`, else of the hint's."""
    if hints[-1] is not ... and len(values) != len(hints):
        raise ConfigError(f"{file}: {key} has {len(values)} entries; {len(hints)} are needed")
    each = [hints[0]] * len(values) if hints[-1] is ... else hints
    pairs = zip(each, values, strict=True)
    return tuple(_value(hint, v, file, f"{key}[{i}]") for i, (hint, v) in enumerate(pairs))


def _check_json(value: Any, file: str, key: str) -> None:
    """ConfigError for what JSON, into which this is written when all is trained, cannot hold."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_json(inner, file, f"{key}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_json(inner, file, f"{key}[{index}]")
    elif not isinstance(value, str | int | float) or not _is_finite(value):
        raise ConfigError(
            f"{file}: {key} is {_shown(value)}; allowed are texts, finite numbers, true, false, "
            "lists and sections"
        )


def _is_finite(value: str | float) -> bool:
    """Also of whole numbers: what is beyond 64 bits counts nothing here."""
    if isinstance(value, str):
        return True
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def _shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."
