"""Two published judges of degraded speech, each by a package that is not required.

Both were made for speech through a channel: the candidate must be in step with the reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import numpy as np

from quaver.quality.metrics.hearing import HEARING_RATE, resample
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.packages import installed
from quaver.quality.metrics.spectra import comparable

# The C code has room for 50 stretches of speech and dies of a segmentation fault at more. With
# its least stretch and pause of 0.2 s each, no more than that fit into 20 s.
PESQ_SECONDS = 20.0


class Estoi:
    """Extended short-time objective intelligibility, about 0 to 1 (Jensen and Taal 2016).

    By the package pystoi: correlations of third-octave bands up to 4.3 kHz over 384 ms, the
    reference's pauses left out.
    """

    name = "estoi"
    unit = ""
    higher_is_better = True
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step; hears nothing above 4.3 kHz"

    def __init__(self) -> None:
        self.version = installed("pystoi", "ESTOI")

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference, seconds=0.5)
        if isinstance(pair, NotMeasured):
            return pair
        pystoi = import_module("pystoi")

        with warnings.catch_warnings(), _same_random_numbers():
            # With too little speech it warns and returns 1e-5, which would pass for a number.
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                return _score(pystoi.stoi(pair.reference, pair.candidate, pair.rate, extended=True))
            except RuntimeWarning:
                return NotMeasured("less than 0.4 s of the reference is speech; ESTOI needs more")


class Pesq:
    """Wideband PESQ (ITU-T P.862.2): a predicted opinion of 1.0 to 4.64, by the package pesq.

    Its C code is the ITU's reference, under the ITU's terms; that is why it is not required.
    Signals above 16 kHz are resampled, so nothing above 8 kHz is judged.
    """

    name = "pesq"
    unit = "points of MOS"
    higher_is_better = True
    kind = Kind.PAIRED
    valid_for = "two renderings of the same codes, in step; speech, hears nothing above 8 kHz"

    def __init__(self) -> None:
        self.version = installed("pesq", "PESQ")

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        pair = comparable(candidate, reference, seconds=0.3)
        if isinstance(pair, NotMeasured):
            return pair
        if pair.rate < HEARING_RATE:
            return NotMeasured(f"the sample rate is {pair.rate}; wideband needs {HEARING_RATE} Hz")
        if (seconds := len(pair.reference) / pair.rate) > PESQ_SECONDS:
            return NotMeasured(f"it lasts {seconds:.1f} s; PESQ takes {PESQ_SECONDS:g} s at most")
        pesq = import_module("pesq")

        sounds = [
            resample(x.astype(np.float32), pair.rate) for x in (pair.reference, pair.candidate)
        ]
        try:
            return _score(pesq.pesq(HEARING_RATE, *sounds, "wb"))
        except pesq.PesqError as error:
            return NotMeasured(f"PESQ refuses the pair: {error}")


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Seed numpy's global generator for a while, then leave it as it was.

    pystoi adds faint noise from it, which decides alone where the candidate is digitally silent:
    unseeded, the same pair differs in the third digit from call to call.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _score(value: float) -> Score | NotMeasured:
    if not np.isfinite(value):
        return NotMeasured(f"the package answers {value}")
    return Score(float(value))
