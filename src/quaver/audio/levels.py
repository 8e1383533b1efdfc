"""What counts as sound. One threshold, so that TTFA, trimming and silence detection agree.

It is applied to single samples and not to windows: the answer for a stream then cannot depend on
how the stream was cut into chunks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AUDIBLE_DBFS = -50.0  # above a neural codec's noise floor, below the quietest consonant
AUDIBLE_AMPLITUDE = 10 ** (AUDIBLE_DBFS / 20)


def from_pcm16(pcm: bytes) -> NDArray[np.float32]:
    """Little-endian 16 bits -> samples [n] in -1..1."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


def rms_dbfs(samples: NDArray[np.float32]) -> float:
    """Level of samples [n] in dB, where a square wave of amplitude 1 is 0; -inf for silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10 * math.log10(power) if power else -math.inf


def audible(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of samples [n] reach the threshold: a mask of shape [n]."""
    return np.abs(samples) >= AUDIBLE_AMPLITUDE


def first_audible(samples: NDArray[np.float32]) -> int | None:
    """Index of the first audible one of samples [n], or None."""
    mask = audible(samples)
    return int(mask.argmax()) if mask.any() else None


def last_audible(samples: NDArray[np.float32]) -> int | None:
    """Index of the last audible one of samples [n], or None."""
    before_end = first_audible(samples[::-1])
    return None if before_end is None else len(samples) - 1 - before_end
