"""What a metric is: a name, what its number means, and one method.

A metric judges one utterance at a time. What follows from many of them, with intervals, is
`quality.stats`' business. Others add metrics of their own by the entry point `quaver.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Kind(StrEnum):
    """What a metric looks at."""

    SPEECH = "speech"  # one utterance and the text that it should say
    PAIRED = "paired"  # two renderings of the same codes, in step with each other
    TWIN = "twin"  # two utterances of one text by one voice, each with its own timing


@dataclass(frozen=True, slots=True)
class Speech:
    """One utterance to judge. Samples [n] may hold whatever a broken model makes, NaN too."""

    samples: NDArray[np.float32]
    sample_rate: int
    text: str = ""
    voice: str | None = None
    finish_reasons: tuple[str, ...] = ("stop",)  # one a segment; see `core.types.FinishReason`

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Score:
    """One utterance's number. Of many, the mean counts, weighted: a word error rate by words."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Why there is no number. Never the same as a bad number, and never as a good one."""

    reason: str


class Metric(Protocol):
    """A judge of utterances."""

    name: str  # one word, as in reports and gates
    version: str  # of the definition, and of the package or weights that judge
    unit: str  # "dB", "share", "points of MOS"; "" for a plain ratio
    higher_is_better: bool
    kind: Kind
    valid_for: str  # one line: on what its number means something

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        """Judge `candidate`. A SPEECH metric ignores `reference`, others compare it with that.

        What makes a number meaningless (too short, silent, NaN) is NotMeasured with the reason.
        """
