"""What a run tells while it works, and what it made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, and how far it is."""

    stage: str
    done: float
    total: float


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer: what was asked for, what it got, and the noise that its rounding makes.

    `sqnr_db` is the power of the weight over that of its error, 10 log10.
    """

    name: str
    wanted: str
    format: str
    sqnr_db: float
    parameters: int


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was made. Layers are sorted worst first."""

    model: str
    recipe: str
    bytes_before: int
    bytes_after: int
    layers: tuple[LayerReport, ...]
    calibration: dict[str, Any] | None

    @property
    def kept(self) -> list[LayerReport]:
        """Layers that stay dense because rounding would cost them too much."""
        return [layer for layer in self.layers if layer.format != layer.wanted]
