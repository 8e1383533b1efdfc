"""A dataset as token sequences: every utterance's prompt and the codec's codes of its sound.

Coding tens of hours takes minutes, so the result is kept beside the data, under the hash of the
codec that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from quaver.codecs.snac import Snac
from quaver.core.errors import ConfigError
from quaver.core.files import new_file
from quaver.train.data import Shard, Utterance

BATCH_SECONDS = 240.0


def code_shard(shard: Shard, folder: Path, snac: Snac, tag: str) -> NDArray[np.int16]:
    """Codes [frames, codes_per_frame] of all utterances of a shard, one after the other."""
    path = folder / f"{shard.name}.{tag}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    frames = np.concatenate(_encode(shard, snac))
    with new_file(path) as part, part.open("wb") as out:
        np.save(out, frames, allow_pickle=False)
    return frames


def frame_counts(shard: Shard, samples_per_frame: int) -> list[int]:
    """Frames of each utterance: its samples, rounded up to whole frames."""
    return [-(-u.samples // samples_per_frame) for u in shard.utterances]


def codec_tag(codec_folder: Path) -> str:
    """A short hash of a codec's weights."""
    path = codec_folder / "model.safetensors"
    if not path.exists():
        raise ConfigError(f"no codec at {codec_folder}; train one with: quaver train codec CONFIG")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@torch.inference_mode()
def _encode(shard: Shard, snac: Snac) -> list[NDArray[np.int16]]:
    counts = frame_counts(shard, snac.samples_per_frame)
    coded: list[NDArray[np.int16]] = [np.empty((0, 0), np.int16)] * len(counts)
    for group in _by_length(shard.utterances, BATCH_SECONDS * snac.sample_rate):
        longest = max(shard.utterances[i].samples for i in group)
        batch = np.zeros((len(group), longest), np.float32)
        for row, i in enumerate(group):
            sound = shard.sound(shard.utterances[i])
            batch[row, : len(sound)] = sound.astype(np.float32) / 32768.0
        frames = snac.encode_batch(torch.from_numpy(batch).to(snac.device))
        found = frames.to(torch.int16).cpu().numpy()
        for row, i in enumerate(group):
            coded[i] = found[row, : counts[i]]
    return coded


def _by_length(utterances: Sequence[Utterance], samples: float) -> Iterator[list[int]]:
    """Groups of like lengths whose padded size stays under `samples`."""
    group: list[int] = []
    for i in sorted(range(len(utterances)), key=lambda i: utterances[i].samples):
        if group and utterances[i].samples * (len(group) + 1) > samples:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
