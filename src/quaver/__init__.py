"""Quaver: open speech and music models in real time, in eight bits, with proof.

    import quaver
    voice = quaver.load("nano")
    voice.generate("Hello there.").save("hello.wav")

Importing this package loads no torch; `load` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quaver.core.errors import QuaverError
from quaver.core.types import Audio, AudioChunk, FinishReason, SamplingParams

if TYPE_CHECKING:
    from quaver.loading import load

__all__ = ["Audio", "AudioChunk", "FinishReason", "QuaverError", "SamplingParams", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        from quaver.loading import load

        return load
    raise AttributeError(f"module 'quaver' has no attribute '{name}'")
