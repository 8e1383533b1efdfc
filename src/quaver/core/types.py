"""The nouns that every room shares. No torch here, so that `import quaver` stays light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from quaver.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_CHARS = 200_000  # of one text: about four hours of speech


class FinishReason(StrEnum):
    """Why a stream ended."""

    STOP = "stop"  # the model said that it was done
    LENGTH = "length"  # the frame limit was reached
    CANCELLED = "cancelled"  # the caller went away
    REPETITION = "repetition"  # the last frames repeat with a short period: a loop
    SILENCE = "silence"  # sound stopped, but the model did not


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a sampling parameter may have, and how a message says so."""

    low: float
    high: float
    told: str
    whole: bool = False
    above: bool = False  # `low` itself is not allowed
    below: bool = False  # `high` itself is not allowed

    def holds(self, value: object) -> bool:
        """Whether `value` is a number of this kind in the range; numpy's count, bool does not."""
        kind = Integral if self.whole else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        # a whole number may be too large for a float
        number = int(value) if isinstance(value, Integral) else float(value)
        edge = (self.above and number == self.low) or (self.below and number == self.high)
        return self.low <= number <= self.high and not edge


SAMPLING_RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "temperature": Range(0.0, 10.0, "0 to 10 (0 is greedy)"),
        "top_k": Range(0, 2**20, "a whole number from 0 (off) to 1048576", whole=True),
        "top_p": Range(0.0, 1.0, "above 0, up to 1 (off)", above=True),
        "min_p": Range(0.0, 1.0, "0 (off) to below 1", below=True),
        "repetition_penalty": Range(0.1, 10.0, "0.1 to 10 (1 is off)"),
        "repetition_window": Range(0, 4096, "a whole number from 0 (all) to 4096", whole=True),
    }
)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one code is drawn from its logits. The defaults are Orpheus's and stand only here.

    The order is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p.
    """

    temperature: float = 0.6  # 0 takes the most probable code
    top_k: int = 0  # 0 keeps all
    top_p: float = 0.8  # 1 keeps all
    min_p: float = 0.0  # 0 keeps all; relative to the most probable code
    repetition_penalty: float = 1.1  # 1 is off; the prompt's ids count
    repetition_window: int = 0  # last tokens that count; 0 counts all

    def __post_init__(self) -> None:
        for name, allowed in SAMPLING_RANGES.items():
            if not allowed.holds(value := getattr(self, name)):
                raise InputError(f"{name} is {str(value)[:40]}; allowed is {allowed.told}")

    def override(self, values: Mapping[str, float | None]) -> Self:
        """A copy with the values that are not None. Unknown names are an error."""
        known = {f.name for f in fields(self)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown sampling parameters {unknown}; allowed are {sorted(known)}")
        return replace(self, **{k: v for k, v in values.items() if v is not None})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """A piece of a stream: float32 samples of shape [n], n > 0, each in -1..1."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(slots=True)
class StreamStats:
    """What one synthesis did. It fills while the stream is read and is whole when it ends."""

    seed: int = 0
    prompt_tokens: int = 0
    tokens: int = 0  # sampled, stop tokens included
    frames: int = 0
    segments: int = 0
    audio_seconds: float = 0.0
    busy_seconds: float = 0.0  # of work; the reader's own time between chunks is not in it
    queue_seconds: float = 0.0  # that its segments waited for a slot
    ttfa_seconds: float | None = None  # of work, to the chunk with the first audible sample
    finish_reasons: list[FinishReason] = field(default_factory=list)  # one a segment
    characters_left_out: int = 0  # that the model cannot read
    left_out: tuple[str, ...] = ()  # the first of them, by code point and name

    @property
    def rtf(self) -> float | None:
        """Seconds of work per second of audio; None without audio."""
        return self.busy_seconds / self.audio_seconds if self.audio_seconds else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"rtf": self.rtf}


@dataclass(frozen=True, slots=True)
class Audio:
    """A whole utterance: float32 samples of shape [n] in -1..1."""

    samples: NDArray[np.float32]
    sample_rate: int
    stats: StreamStats = field(default_factory=StreamStats)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate

    def save(self, path: str | Path) -> Path:
        """Write to `path`; its ending picks wav, mp3, opus, flac or aac. Returns the path."""
        from quaver.audio.encode import save

        return save(path, self.samples, self.sample_rate)
