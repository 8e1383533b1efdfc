"""Reading a dataset: shards of 16-bit samples beside tables of what they say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row: what is said, by whom, and where its samples lie in the shard's file."""

    text: str
    voice: str
    start: int
    samples: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Utterances and their samples, memory-mapped int16 [n]."""

    name: str
    utterances: tuple[Utterance, ...]
    samples: NDArray[np.int16]

    def sound(self, utterance: Utterance) -> NDArray[np.int16]:
        return self.samples[utterance.start : utterance.start + utterance.samples]


def read_shards(folder: str | Path, hours: float, sample_rate: int) -> list[Shard]:
    """Whole shards in order until they hold `hours`. The first is for validation."""
    tables = sorted(Path(folder).glob("shard-*.jsonl"))
    shards: list[Shard] = []
    samples = 0
    for table in tables:
        shards.append(_read_shard(table))
        samples += len(shards[-1].samples)
        if samples >= hours * 3600 * sample_rate:
            break
    if len(shards) < 2:
        raise ConfigError(
            f"{folder} has {len(shards)} whole shards, at least 2 are needed (one is for "
            "validation); make the data with: quaver train data CONFIG"
        )
    return shards


def _read_shard(table: Path) -> Shard:
    sound = table.with_suffix(".i16")
    try:
        rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
        samples = np.memmap(sound, dtype=np.int16, mode="r")
        lengths = [int(row["samples"]) for row in rows]
        texts = [(str(row["text"]), str(row["voice"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{table} or its .i16 file is damaged ({error}); delete both") from None
    if sum(lengths) != len(samples):
        raise ConfigError(
            f"{sound} has {len(samples)} samples, its table {sum(lengths)}; "
            "delete both and make them again"
        )
    starts = np.cumsum([0, *lengths[:-1]])
    return Shard(
        table.stem,
        tuple(
            Utterance(text, voice, int(start), length)
            for (text, voice), start, length in zip(texts, starts, lengths, strict=True)
        ),
        samples,
    )
