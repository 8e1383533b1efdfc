"""Is it the same speaker? Cosines of speaker embeddings, the field's measure of a voice.

The weights are Resemblyzer's (Apache-2.0), a d-vector network after Wan et al., "Generalized
end-to-end loss for speaker verification" (2018), which come in that package's wheel. The package
itself is not imported: it drags librosa and a voice activity detector along, and does little more
than the network of four layers and the mel spectrogram below.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quaver.quality.metrics.hearing import HEARING_RATE, Sound, voice_at_16_khz
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.packages import installed
from quaver.quality.metrics.spectra import Floats, frame, hann

if TYPE_CHECKING:
    from torch import Tensor, nn

_WEIGHTS = "resemblyzer/pretrained.pt"  # in the package
# The front end that the weights were trained with.
WIDTH, HOP, BANDS = 400, 160, 40  # samples, samples, mel bands
WINDOW = 160  # frames that one embedding is of, 1.6 s
STEP = 77  # frames between two of them, 1.3 a second
LEAST_COVERED = 0.75  # of the last window; with less it is left out
# RMS re full scale. The network hears level: at twice the amplitude a voice is itself by 0.95 only.
# It was taught speech that had been raised to this one, so both sides are brought to it.
LEVEL = 10 ** (-30 / 20)


class SpeakerSimilarity:
    """Cosine of two embeddings, 0 to 1. The network loads with the first measurement."""

    name = "speaker-similarity"
    unit = ""
    higher_is_better = True
    kind = Kind.TWIN
    valid_for = "speech up to 8 kHz, one text by one voice on both sides; noise lowers it too"

    def __init__(self) -> None:
        # without what it drags along
        self.version = installed("resemblyzer", "speaker similarity", "--no-deps resemblyzer")
        self._network: tuple[nn.LSTM, nn.Linear] | None = None

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        return similarity(candidate, reference, self._embed)

    def _embed(self, sound: Sound) -> Floats:
        import torch

        if self._network is None:
            self._network = load(Path(str(distribution("resemblyzer").locate_file(_WEIGHTS))))
        with torch.inference_mode():
            return embedding(self._network, sound).double().numpy()


def similarity(candidate: Speech, reference: Speech | None, embed: Any) -> Score | NotMeasured:
    """Cosine of what `embed` makes of both at 16 kHz, or why it would mean nothing."""
    if reference is None:
        return NotMeasured("there is no reference to compare with")
    vectors = []
    for side, speech in (("candidate", candidate), ("reference", reference)):
        sound = voice_at_16_khz(speech)
        if isinstance(sound, NotMeasured):
            return NotMeasured(f"{side}: {sound.reason}")
        vectors.append(embed(sound))
    norms = [np.linalg.norm(vector) for vector in vectors]
    return Score(float(vectors[0] @ vectors[1] / (norms[0] * norms[1])))


def load(weights: Path) -> tuple[nn.LSTM, nn.Linear]:
    """The network of the file `weights`: three recurrent layers and a projection."""
    import torch
    from torch import nn

    state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)[
        "model_state"
    ]
    recurrent, projection = nn.LSTM(BANDS, 256, 3, batch_first=True), nn.Linear(256, 256)
    for name, part in (("lstm", recurrent), ("linear", projection)):
        own = {key: value for key, value in state.items() if key.startswith(f"{name}.")}
        part.load_state_dict({key.removeprefix(f"{name}."): own[key] for key in own})
    return recurrent, projection


def embedding(network: tuple[nn.LSTM, nn.Linear], sound: Sound) -> Tensor:
    """Unit vector [256] of `sound` [n] at 16 kHz: the mean over its windows of 1.6 s."""
    import torch

    recurrent, projection = network
    windows = torch.from_numpy(mel_windows(sound))
    _, (hidden, _) = recurrent(windows)
    each = torch.nn.functional.normalize(projection(hidden[-1]).relu(), dim=1)
    return torch.nn.functional.normalize(each.mean(0), dim=0)


def mel_windows(sound: Sound) -> Sound:
    """Mel power [windows, 160, 40] of `sound` [n] at 16 kHz; zeros complete the last window."""
    levelled = sound.astype(np.float64)
    levelled *= LEVEL / np.sqrt((levelled**2).mean())
    last = int((len(sound) - LEAST_COVERED * WINDOW * HOP) // HOP)
    starts = range(0, max(last, 0) + 1, STEP)
    missing = max(0, (starts[-1] + WINDOW) * HOP - len(sound))
    # Frames are centred on multiples of the hop.
    centred = np.pad(levelled, (WIDTH // 2, missing + WIDTH // 2))
    power = np.abs(np.fft.rfft(frame(centred, WIDTH, HOP) * hann(WIDTH), axis=1)) ** 2
    mel = power @ slaney_filters().T
    return np.stack([mel[start : start + WINDOW] for start in starts]).astype(np.float32)


def slaney_filters() -> Floats:
    """Triangles [40, 201] of unit area in hertz, even on Slaney's mel scale (Auditory Toolbox).

    That scale is linear up to 1 kHz and logarithmic above, 27 steps for a factor of 6.4.
    """
    linear, step, per_log = 1000.0, 200 / 3, 27 / np.log(6.4)
    highest = linear / step + per_log * np.log(HEARING_RATE / 2 / linear)
    mels = np.linspace(0.0, highest, BANDS + 2)
    above = linear * np.exp((mels - linear / step) / per_log)
    edges = np.where(mels < linear / step, mels * step, above)
    frequency = np.fft.rfftfreq(WIDTH, 1 / HEARING_RATE)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    filters: Floats = np.clip(np.minimum(rising, falling), 0, None)
    return filters * (2 / (edges[2:] - edges[:-2]))[:, None]
