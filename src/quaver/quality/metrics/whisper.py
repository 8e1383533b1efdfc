"""Word error rate by Whisper, from a folder in transformers' layout that the user has.

Its words are counted as those of `wer`: one normalisation, one count. Greedy and in English always,
so that nothing is drawn by chance or guessed from the sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import InputError
from quaver.quality.metrics.folders import check_folder, load_model, read_settings
from quaver.quality.metrics.hearing import HEARING_RATE, words_at_16_khz
from quaver.quality.metrics.packages import QUALITY, installed
from quaver.quality.metrics.wer import Listener

_ARCHITECTURE = "WhisperForConditionalGeneration"
_GENERATION = "generation_config.json"
_ENGLISH = {"language": "en", "task": "transcribe"}


class WhisperWordErrorRate(Listener):
    """Word errors over words, as the Whisper in a folder hears them.

    It loads with the first measurement. Sound of more than 30 s is heard in stretches that end
    where Whisper says that a phrase does.
    """

    name = "whisper-wer"
    valid_for = "English; it may repair words that are badly said, and hears none in silence"

    def __init__(self, folder: Path) -> None:
        installed("jiwer", "word error rate", QUALITY)
        tokenizer = ("tokenizer.json", "vocab.json")
        self.version = check_folder(folder, "whisper", _ARCHITECTURE, tokenizer)
        told = read_settings(folder / _GENERATION, "whisper")
        if "is_multilingual" not in told:
            raise InputError(f"whisper needs is_multilingual in {folder}/{_GENERATION}; it is old")
        # A model of English alone refuses to be told the language.
        self._told = _ENGLISH if told["is_multilingual"] else {}
        self._folder = folder
        self._parts: tuple[Any, Any, Any] | None = None

    def transcribe(self, samples: NDArray[np.float32], sample_rate: int) -> str:
        sound = words_at_16_khz(samples, sample_rate)
        if sound is None:  # where Whisper would make a sentence up
            return ""
        import torch

        self._parts = self._parts or _load(self._folder)
        model, extractor, tokenizer = self._parts
        long = len(sound) > extractor.n_samples
        heard = extractor(
            sound,
            sampling_rate=HEARING_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=not long,
            padding="longest" if long else "max_length",
        ).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(
                **heard, **self._told, do_sample=False, num_beams=1, return_timestamps=long
            )
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()


def _load(folder: Path) -> tuple[Any, Any, Any]:
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    return (
        load_model(folder, _ARCHITECTURE),
        WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True),
        WhisperTokenizer.from_pretrained(folder, local_files_only=True),
    )
