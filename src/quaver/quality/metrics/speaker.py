"""Who is speaking? Two gauges without any downloaded weights.

Each utterance becomes one vector: mean and spread of its mel cepstra (the vocal tract) and the
median and spread of its pitch. `SpeakerClassifier` tells a few known voices apart by linear
discriminant analysis with a shrunken covariance: does the speech still go to the voice that it was
asked for? `VoiceDistance` says how far the timbre of two utterances is apart. Neither knows what
makes a stranger a stranger; that needs a trained speaker model, as in `similarity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import InputError
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech

Floats = NDArray[np.float64]
Utterance = tuple[NDArray[np.float32], int, str]  # samples [n], sample rate, label

FRAME_SECONDS, HOP_SECONDS = 0.032, 0.010
LOWEST_HERTZ, HIGHEST_HERTZ = 80.0, 7000.0  # fixed in hertz, so that sample rates can differ
MEL_BANDS, CEPSTRA = 26, 14
PITCH_HERTZ = (60.0, 400.0)
VOICED = 0.45  # height of the autocorrelation peak above which a frame counts as voiced
LOUD = 10 ** (-30 / 10)  # frames below this share of the loudest one's energy are pauses
SHRINKAGE = 0.2  # share of the covariance that is replaced by its diagonal


def speaker_features(samples: NDArray[np.float32], sample_rate: int) -> Floats:
    """One utterance [n] as a vector [30]: 14 cepstral means, 14 deviations, log pitch, its spread.

    Raises InputError below 14 kHz, for less than a quarter second of sound, and for silence.
    """
    if sample_rate < 2 * HIGHEST_HERTZ:
        raise InputError(f"the sample rate is {sample_rate}; {2 * HIGHEST_HERTZ:.0f} or more works")
    frames = _loud_frames(np.asarray(samples, dtype=np.float64).reshape(-1), sample_rate)
    window = np.hanning(frames.shape[1])
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mel = np.log(power @ _mel_filters(frames.shape[1], sample_rate).T + 1e-8)
    # The zeroth coefficient is loudness, which is no trait of the speaker.
    cepstra = mel @ _cosines().T
    pitch = np.log(_pitch(frames, sample_rate))
    spread = np.subtract(*np.percentile(pitch, [75, 25])) if len(pitch) else 0.0
    middle = np.median(pitch) if len(pitch) else np.log(PITCH_HERTZ[0])
    return np.concatenate([cepstra.mean(0), cepstra.std(0), [middle, spread]])


@dataclass(frozen=True, slots=True)
class SpeakerClassifier:
    """Nearest voice under one shared Gaussian shape. Make it with `fit`."""

    labels: tuple[str, ...]
    means: Floats  # [labels, features]
    precision: Floats  # [features, features], inverse of the shared covariance

    @classmethod
    def fit(cls, utterances: Sequence[Utterance]) -> Self:
        """Learn the voices named by the labels; a dozen utterances each are enough.

        Raises InputError for fewer than two voices or fewer than two utterances of one.
        """
        labels = tuple(sorted({label for _, _, label in utterances}))
        features = np.stack([speaker_features(s, rate) for s, rate, _ in utterances])
        owner = np.array([labels.index(label) for _, _, label in utterances])
        if len(labels) < 2 or np.bincount(owner).min() < 2:
            raise InputError(
                f"{len(utterances)} utterances of {list(labels)}; give two voices or more, "
                "each with two utterances or more"
            )
        means = np.stack([features[owner == k].mean(0) for k in range(len(labels))])
        within = features - means[owner]
        covariance = within.T @ within / max(1, len(utterances) - len(labels))
        diagonal = np.diag(np.diag(covariance) + 1e-6)
        shrunken = (1 - SHRINKAGE) * covariance + SHRINKAGE * diagonal
        return cls(labels, means, np.linalg.inv(shrunken))

    def predict(self, samples: NDArray[np.float32], sample_rate: int) -> str:
        """The label of the voice nearest to `samples` [n]."""
        gaps = self.means - speaker_features(samples, sample_rate)
        distances = np.einsum("kf,fg,kg->k", gaps, self.precision, gaps)
        return self.labels[int(distances.argmin())]


class VoiceDistance:
    """How far two long-term spectra are apart, in dB, loudness left out.

    The root mean square over mel bands of their difference, smoothed to 14 cepstra. It is what mel
    cepstral distortion, (10 / ln 10) sqrt(2 sum d^2), gives of mean cepstra of log magnitudes; ours
    are of log power in an orthonormal cosine transform, where the same is a sum over N bands.
    """

    name = "voice"
    version = f"1 ({CEPSTRA} mean cepstra of {MEL_BANDS} mel bands to 7 kHz)"
    unit = "dB"
    higher_is_better = False
    kind = Kind.TWIN
    valid_for = "one text by one voice on both sides; timbre and noise, not who it is"

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        if reference is None:
            return NotMeasured("there is no reference to compare with")
        means = []
        for side, speech in (("candidate", candidate), ("reference", reference)):
            if not np.isfinite(speech.samples).all():
                return NotMeasured(f"the {side} holds NaN or infinity")
            try:
                means.append(speaker_features(speech.samples, speech.sample_rate)[:CEPSTRA])
            except InputError as error:
                return NotMeasured(f"{side}: {error}")
        gap = means[0] - means[1]
        return Score(float(10 / np.log(10) * np.sqrt((gap**2).sum() / MEL_BANDS)))


def _loud_frames(samples: Floats, sample_rate: int) -> Floats:
    """Frames [m, width] of `samples`, pauses left out, the loudest with a mean square of 1."""
    width, hop = int(FRAME_SECONDS * sample_rate), int(HOP_SECONDS * sample_rate)
    if len(samples) < sample_rate // 4:
        raise InputError(
            f"{len(samples) / sample_rate:.2f} s of sound; a speaker needs at least 0.25 s"
        )
    frames = np.lib.stride_tricks.sliding_window_view(samples, width)[::hop]
    energy = (frames**2).mean(1)
    if not energy.max() > 1e-8:
        raise InputError("the utterance is silent; a speaker can be told from speech only")
    loud: Floats = frames[energy > energy.max() * LOUD] / np.sqrt(energy.max())
    return loud


def _mel_filters(width: int, sample_rate: int) -> Floats:
    """Triangular filters [bands, width // 2 + 1] of unit sum, evenly spaced in mel (HTK's)."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (LOWEST_HERTZ, HIGHEST_HERTZ))
    edges = 700 * (10 ** (np.linspace(low, high, MEL_BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(width, 1 / sample_rate)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    scaled: Floats = filters / np.maximum(filters.sum(1, keepdims=True), 1e-12)
    return scaled


def _cosines() -> Floats:
    """The rows 1 to 14 of an orthonormal DCT-II, [cepstra, bands]."""
    order = np.arange(1, CEPSTRA + 1)[:, None]
    phase = np.pi * order * (np.arange(MEL_BANDS) + 0.5) / MEL_BANDS
    rows: Floats = np.sqrt(2 / MEL_BANDS) * np.cos(phase)
    return rows


def _pitch(frames: Floats, sample_rate: int) -> Floats:
    """Hertz of the voiced frames, [v], by the highest peak of the autocorrelation."""
    width = frames.shape[1]
    centred = frames - frames.mean(1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, 2 * width, axis=1)) ** 2
    correlation = np.fft.irfft(spectrum, axis=1)[:, :width]
    # Long lags see fewer samples; without this a low voice would count as unvoiced.
    overlap = width / (width - np.arange(width))
    correlation = correlation * overlap / np.maximum(correlation[:, :1], 1e-12)
    first, last = (int(sample_rate / hertz) for hertz in reversed(PITCH_HERTZ))
    searched = correlation[:, first : min(last, width * 3 // 4)]
    lag = searched.argmax(1) + first
    hertz: Floats = sample_rate / lag[searched.max(1) > VOICED]
    return hertz
