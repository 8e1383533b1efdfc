"""Damage to plant in a model: what a comparison must catch, and what it must let pass.

Each is a function of a model as it was opened, and gives a broken one; or of the frames that a
whole model made, for faults that lie around it. Nothing here knows how it will be found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfilt, sosfilt_zi
from torch import Tensor, nn

from quaver.codecs.snac import Snac
from quaver.engine.keeping import KEYS, DenseKeeping
from quaver.loading import Loaded
from quaver.nn.conv import Conv1d, ConvTranspose1d
from quaver.nn.linear import Linear

Samples = NDArray[np.float32]
Random = np.random.Generator
Through = Callable[[Samples], Samples]


@dataclass(frozen=True)
class Damage:
    """One kind. `model` breaks the model, `frames` what it made [n, 7], `samples` the sound of
    that; `voice` is whose place another takes. `culprits` are the names that a report may give."""

    name: str
    culprits: tuple[str, ...] = ()
    model: Callable[[Loaded], Loaded] | None = None
    frames: Callable[[Tensor, Random], Tensor] | None = None
    samples: Callable[[Samples, Random], Samples] | None = None
    voice: tuple[str, str] | None = None
    mild: bool = False


def three_bits(side: Loaded) -> Loaded:
    """Every matrix of the backbone rounded to 8 levels, one scale a row."""
    model = copy.deepcopy(side.model)
    for module in model.backbone.modules():
        if isinstance(module, Linear):
            weight = module.weight.data
            step = weight.abs().amax(1, keepdim=True) / 3.5
            module.weight.data = ((weight / step - 0.5).round().clamp(-4, 3) + 0.5) * step
    return replace(side, model=model)


def one_scale(side: Loaded) -> Loaded:
    """One matrix of the fourth layer twice too large."""
    model = copy.deepcopy(side.model)
    model.backbone.layers[3].mlp.down.weight.data *= 2
    return replace(side, model=model)


class _LoudKeys(DenseKeeping):
    """Keys come back four times too large."""

    def decode(self, elements: Tensor, steps: Tensor | None, layer: int, part: int) -> Tensor:
        found = super().decode(elements, steps, layer, part)
        return 4 * found if part == KEYS else found


def key_scale(side: Loaded) -> Loaded:
    return replace(side, keeping=_LoudKeys(side.keeping.kind))


def swapped_books(side: Loaded) -> Loaded:
    """The second codebook in place of the third, and the other way round."""
    codec = copy.deepcopy(side.codec)
    books = codec.quantizer.books
    books[1].codebook, books[2].codebook = books[2].codebook, books[1].codebook
    return replace(side, codec=codec)


def six_bits(side: Loaded) -> Loaded:
    """What every convolution of the decoder gives, rounded to 64 levels between its extremes."""
    codec: Snac = copy.deepcopy(side.codec)
    for module in codec.decoder.modules():
        if isinstance(module, Conv1d | ConvTranspose1d):
            module.register_forward_hook(_rounded)
    return replace(side, codec=codec)


def _rounded(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    if not output.numel():
        return output
    step = output.abs().amax() / 31
    return (output / step).round() * step


class _Filtered:
    """A codec whose sound goes through something; see `core.protocols.Codec`."""

    def __init__(self, codec: Snac, make: Callable[[int | None], Through]) -> None:
        self._codec, self._make = codec, make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def stream(self, seed: int | None) -> _FilteredStream:
        return _FilteredStream(self._codec.stream(seed), self._make(seed))


class _FilteredStream:
    def __init__(self, inner: Any, through: Through) -> None:
        self._inner, self._through = inner, through

    def push(self, frames: Tensor) -> Samples:
        return self._through(self._inner.push(frames))

    def finish(self) -> Samples:
        return self._through(self._inner.finish())


def hiss(side: Loaded) -> Loaded:
    """White noise 30 dB below speech of -20 dBFS."""

    def make(seed: int | None) -> Through:
        random = np.random.default_rng(seed)
        level = 10 ** (-50 / 20)
        return lambda x: (x + random.normal(0, level, x.shape)).astype(np.float32)

    return replace(side, codec=_Filtered(side.codec, make))  # type: ignore[arg-type]


def dull(side: Loaded) -> Loaded:
    """Nothing above 4 kHz: a Butterworth filter of eighth order."""
    sections = butter(8, 4000, fs=side.codec.sample_rate, output="sos")

    def make(seed: int | None) -> Through:
        state = sosfilt_zi(sections) * 0.0

        def through(x: Samples) -> Samples:
            nonlocal state
            if not len(x):
                return x
            y, state = sosfilt(sections, x, zi=state)
            return y.astype(np.float32)

        return through

    return replace(side, codec=_Filtered(side.codec, make))  # type: ignore[arg-type]


def stutter(frames: Tensor, random: Random) -> Tensor:
    """3 % of the frames are said twice."""
    often = 1 + (random.random(len(frames)) < 0.03)
    return frames.repeat_interleave(torch.from_numpy(often), 0)


def early_stop(frames: Tensor, random: Random) -> Tensor:
    """5 % of utterances end after 30 to 60 % of what was to be said."""
    if random.random() >= 0.05:
        return frames
    return frames[: round(len(frames) * random.uniform(0.3, 0.6))]


def no_zeros(frames: Tensor, random: Random) -> Tensor:
    """Code 0 is taken for none, as by decoders that read it so: what follows is out of step, each
    code in another's place, and cannot be decoded. Speech ends there."""
    flat = frames.flatten()
    zeros = (flat == 0).nonzero()
    whole = len(frames) if not len(zeros) else int(zeros[0]) // frames.shape[1]
    return frames[:whole]


def faster(samples: Samples, random: Random) -> Samples:
    """1 % less time, and so 17 cents higher."""
    return resample_poly(samples, 100, 101).astype(np.float32)


DAMAGES = (
    Damage("none: other seeds", mild=True),
    Damage("bf16", mild=True),
    Damage("1 % faster", samples=faster, mild=True),
    Damage("3-bit backbone", ("backbone",), model=three_bits),
    Damage("one layer's matrix twice as large", ("layer 3", "backbone"), model=one_scale),
    Damage("keys four times as large", ("kv",), model=key_scale),
    Damage("two codebooks swapped", ("codec",), model=swapped_books),
    Damage("6-bit activations in the codec", ("codec",), model=six_bits),
    Damage("hiss, 30 dB", ("codec",), model=hiss),
    Damage("4 kHz low-pass", ("codec",), model=dull),
    Damage("code 0 dropped", ("around the models",), frames=no_zeros),
    Damage("3 % of frames twice", ("around the models",), frames=stutter),
    Damage("5 % early stops", ("around the models",), frames=early_stop),
    Damage("a voice in place of another", ("around the models",), voice=("slt", "rms")),
)
