"""What a comparison found: one finding a metric, each side with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Estimate

Cell = Estimate | NotMeasured


class Layer(StrEnum):
    """How the two sides were set beside each other."""

    FORCED = "teacher-forced"  # both read the same tokens
    CODEC = "same codes"  # both decode the same codes
    SPEECH = "free-running"  # both speak the same texts
    SPEED = "speed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric. Where it compares the two sides itself, `reference` is what the reference gets
    against its own control, and there is no `change`.

    `null` is the change between two runs of the reference under other seeds: what chance does.
    """

    metric: str
    layer: Layer
    unit: str
    higher_is_better: bool
    judge: str  # who measured, in which version
    reference: Cell
    candidate: Cell
    change: Cell
    null: Cell
