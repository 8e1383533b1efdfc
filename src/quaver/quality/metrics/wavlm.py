"""Speaker similarity by WavLM, from a folder in transformers' layout that the user has.

Made for microsoft/wavlm-base-plus-sv: WavLM with an x-vector head, trained to verify speakers. The
WavLM-large of seed-tts-eval's tables is another model, and its numbers are not comparable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quaver.quality.metrics.folders import check_folder, load_model
from quaver.quality.metrics.hearing import HEARING_RATE, Sound
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.similarity import similarity
from quaver.quality.metrics.spectra import Floats

_ARCHITECTURE = "WavLMForXVector"


class WavlmSimilarity:
    """Cosine of two x-vectors, -1 to 1. The network loads with the first measurement."""

    name = "wavlm-similarity"
    unit = ""
    higher_is_better = True
    kind = Kind.TWIN
    valid_for = "speech up to 8 kHz, one text by one voice on both sides; noise lowers it too"

    def __init__(self, folder: Path) -> None:
        self.version = check_folder(folder, "wavlm", _ARCHITECTURE)
        self._folder = folder
        self._parts: tuple[Any, Any] | None = None

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        return similarity(candidate, reference, self._embed)

    def _embed(self, sound: Sound) -> Floats:
        import torch

        self._parts = self._parts or _load(self._folder)
        model, extractor = self._parts
        heard = extractor(sound, sampling_rate=HEARING_RATE, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            vector: Floats = model(**heard).embeddings[0].double().cpu().numpy()
        return vector


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import Wav2Vec2FeatureExtractor

    return (
        load_model(folder, _ARCHITECTURE),
        Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True),
    )
