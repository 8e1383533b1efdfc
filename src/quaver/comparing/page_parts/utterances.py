"""The utterances that a comparison kept: their entries in the ledger, and their sound."""

from __future__ import annotations

import base64
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quaver.audio.encode import save
from quaver.comparing.ledger import Ledger
from quaver.comparing.speaking import SIDES, score, sound_path
from quaver.core.errors import InputError
from quaver.core.files import scratch_folder
from quaver.quality.metrics.failures import failures
from quaver.quality.metrics.metric import NotMeasured, Speech

FAILURES = "failures"


@dataclass(frozen=True)
class Utterance:
    """One side's reading of one text. `entry` is the ledger's."""

    side: str
    key: str
    entry: Mapping[str, Any]
    path: Path

    @property
    def name(self) -> str:
        """As the ledger calls it."""
        return f"{self.side}/{self.key}"

    @property
    def place(self) -> str:
        """Of its file in the comparison's folder."""
        return sound_path(Path(), self.side, self.key).as_posix()

    @property
    def heard(self) -> bool:
        """Whether there is any sound."""
        return self.path.exists()

    @property
    def text(self) -> str:
        return str(self.entry.get("text") or "")

    @property
    def seconds(self) -> float:
        return float(self.entry.get("seconds") or 0.0)

    @property
    def voice(self) -> str:
        return str(self.entry.get("voice") or "")

    @property
    def transcript(self) -> str | None:
        found = self.entry.get("transcript")
        return None if found is None else str(found)

    def value(self, metric: str) -> float | None:
        """What a judge said; None if nothing."""
        kept = self.entry["heard"].get(metric)
        found = NotMeasured("") if kept is None else score(kept)
        return None if isinstance(found, NotMeasured) else found.value

    @cached_property
    def sound(self) -> tuple[NDArray[np.float32], int]:
        """Samples [n] and their rate; nothing where there was no sound.

        Raises InputError for a file that is no WAV as `compare` writes them.
        """
        if not self.path.exists():
            return np.zeros(0, np.float32), 0
        try:
            with wave.open(str(self.path)) as opened:
                data, rate = opened.readframes(opened.getnframes()), opened.getframerate()
        except (wave.Error, EOFError) as error:
            raise InputError(f"{self.path} is damaged ({error}); delete its folder") from None
        samples = np.frombuffer(data, "<i2").astype(np.float32)
        samples /= 32768
        return samples, rate

    def player_data(self) -> str | None:
        """The sound as the address of a player, in lossless FLAC; None without sound."""
        samples, rate = self.sound
        if not len(samples):
            return None
        with scratch_folder(
            Path(gettempdir())
        ) as folder:  # a pipe's FLAC would not tell its length
            data = save(folder / "sound.flac", samples, rate).read_bytes()
        return data_address("audio/flac", data)

    def faults(self) -> list[str]:
        """What is plainly broken, if anything is; see `quality.metrics.failures`."""
        if not self.value(FAILURES):
            return []
        samples, rate = self.sound
        finish = tuple(self.entry.get("finish", ()))
        found = failures(Speech(samples, rate or 1, self.text, self.voice, finish))
        # The file is clipped and has no NaN, the samples that were judged may have had.
        return list(found) or ["broken samples, which the file cannot show"]


@dataclass(frozen=True)
class Both:
    """One text by reference and candidate."""

    reference: Utterance
    candidate: Utterance

    @property
    def key(self) -> str:
        return self.candidate.key

    def change(self, metric: str) -> float | None:
        """Candidate's number less the reference's."""
        theirs, ours = self.reference.value(metric), self.candidate.value(metric)
        return None if theirs is None or ours is None else ours - theirs


def data_address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def read_utterances(folder: Path, setup: Mapping[str, Any]) -> list[dict[str, Utterance]]:
    """By side, text by text in the panel's order; what was not spoken is left out."""
    ledger = Ledger(folder, setup)
    found = []
    for key in _keys(setup):
        entries = {side: ledger.get(f"{side}/{key}") for side in SIDES}
        found.append(
            {
                side: Utterance(side, key, entry, sound_path(folder, side, key))
                for side, entry in entries.items()
                if entry is not None
            }
        )
    return found


def _keys(setup: Mapping[str, Any]) -> Iterator[str]:
    """As `comparing.panel.Item` names them."""
    for number in range(int(setup["texts"])):
        for run in range(int(setup["runs"])):
            yield f"{number:04d}-{run}"
