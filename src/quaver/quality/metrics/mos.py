"""What would listeners say? DistillMOS, a small network that predicts their mean opinion.

It was trained on transmitted and processed speech, not on synthesis: call its number a predicted
speech quality and compare it between two formats of one model. Weights come in the wheel of
`distillmos` (MIT), which is not among our own requirements because it drags torchaudio along.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from quaver.core.errors import UnsupportedError
from quaver.quality.metrics.hearing import Sound, voice_at_16_khz
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.packages import installed

WINDOW = 122_880  # samples at 16 kHz that the network looks at; it fills shorter ones with zeros
_PURPOSE = "predicted quality"


class DistilMos:
    """Predicted mean opinion of 1 to 5, heard at 16 kHz and without regard to loudness.

    The network loads with the first measurement; one second of sound takes about 0.1 s.
    """

    name = "mos"
    unit = "points of predicted MOS"
    higher_is_better = True
    kind = Kind.SPEECH
    valid_for = "speech up to 8 kHz; differences between formats of one model, not absolutes"

    def __init__(self) -> None:
        self.version = installed("distillmos", _PURPOSE)
        self._model: Any = None

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        sound = voice_at_16_khz(candidate)
        if isinstance(sound, NotMeasured):
            return sound
        try:
            self._model = self._model or _load()
        except UnsupportedError as error:
            return NotMeasured(str(error))
        import torch

        with torch.inference_mode():
            heard = torch.from_numpy(filling_the_window(sound))
            return Score(float(self._model(heard[None]).squeeze()))


def filling_the_window(sound: Sound) -> Sound:
    """`sound` [n], said again and again until it fills the network's window.

    The network would take zeros that fill a short clip for a part of the speech. The silence that
    is kept around speech parts the repetitions by a pause.
    """
    return np.resize(sound, max(len(sound), WINDOW))


def _load() -> Any:
    """The network with its weights. Raises UnsupportedError where it cannot be imported."""
    try:
        # It says on standard output where its weights lie.
        with _without_torchaudio(), contextlib.redirect_stdout(io.StringIO()):
            return import_module("distillmos").ConvTransformerSQAModel().eval()
    except ImportError as error:
        raise UnsupportedError(f"{_PURPOSE} cannot load distillmos: {error}") from error


@contextlib.contextmanager
def _without_torchaudio() -> Iterator[None]:
    """An empty module stands in for torchaudio, unless it is loaded already.

    The package imports it only to read files, and the one on PyPI does not load beside a torch of
    another build. The specification is for `importlib.util.find_spec`, which fails without one.
    """
    if "torchaudio" in sys.modules:
        yield
        return
    stand_in = ModuleType("torchaudio")
    stand_in.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torchaudio"]
