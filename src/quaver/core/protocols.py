"""What the rooms promise each other. Families, codecs and engine meet only here.

A model makes one *frame* of codes per step, whatever goes on inside: Orpheus runs its backbone
seven times, a two-level model would run a backbone once and a small decoder eight times. The
engine never sees tokens: it hands the model a `Choose`, which turns logits into choices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from quaver.core.types import Audio, AudioChunk, StreamStats


class Turning(Protocol):
    """Cosines and sines by position, which queries and keys are turned by."""

    @property
    def cos(self) -> Tensor:
        """Of all positions, [positions, d]."""

    @property
    def sin(self) -> Tensor: ...

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both for positions [n, t], each [n, 1, t, d]."""


class Layers(Protocol):
    """A stack of layers: x [n, t, width] -> [n, t, width]."""

    def __call__(self, x: Tensor, store: KVStore) -> Tensor: ...


class KVStore(Protocol):
    """Keys and values of some streams, as attention sees them during one pass."""

    @property
    def positions(self) -> Tensor:
        """Positions [n, t] of the inputs of this pass."""

    def through(self, layers: Layers, x: Tensor) -> Tensor:
        """What comes of x [n, t, width] in layers that attend here."""

    def turning(self, rope: Turning) -> tuple[Tensor, Tensor]:
        """What `attend` turns by in this pass."""

    def attend(self, layer: int, qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Queries, keys and values [n, heads + 2 kv_heads, t, d], not yet turned by `rope`: keep
        keys and values, then let queries look at all that they may see of the layer; returns
        [n, heads, t, d]."""

    def advance(self) -> None:
        """Move on by the inputs of this pass."""


class Choose(Protocol):
    """Draws one choice per stream and remembers it for the repetition penalty."""

    def __call__(self, position: int, logits: Tensor) -> Tensor:
        """Logits [n, choices] of one position in the frame, of any float dtype -> choices [n],
        int64, on device."""


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What a model keeps per position: `layers` pairs of [kv_heads, head_dim]."""

    layers: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model reads before it speaks."""

    tokens: tuple[int, ...]
    # (position in the frame, choice) of the prompt's tokens that the model could also say:
    # they count for the repetition penalty
    spoken: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One step's outcome for n streams, all on the device."""

    codes: Tensor  # [n, codes_per_frame] int64; undefined where stopped
    stopped: Tensor  # [n] bool: the model said that it was done instead of making a frame
    hidden: Tensor  # [n, width]: what the next step starts from


class FrameModel(Protocol):
    """An autoregressive model that makes one frame per step."""

    @property
    def choices(self) -> Sequence[int]:
        """How many choices each position in the frame has, stop included where it is legal."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def max_positions(self) -> int: ...

    @property
    def positions_per_frame(self) -> int:
        """Cache positions that one frame takes."""

    @property
    def cache_spec(self) -> CacheSpec: ...

    @property
    def weights(self) -> Sequence[Tensor]:
        """What `frame` reads and nothing changes."""

    def embedded(self, prompt: Tensor) -> Tensor:
        """Prompt tokens [1, t], given on the host -> what is read of them [1, t, ...], on the
        device."""

    def prefill(self, embedded: Tensor, store: KVStore) -> Tensor:
        """Read what was `embedded` -> what `frame` goes on from [1, t, width]. Never syncs."""

    def frame(self, hidden: Tensor, store: KVStore, choose: Choose) -> Frame:
        """Make one frame for n streams that go on from `hidden` [n, width]. Never syncs."""


class CodecStream(Protocol):
    """Turns the frames of one stream into samples, exactly as one decode of them all would."""

    def push(self, frames: Tensor) -> NDArray[np.float32]:
        """Frames [n, codes_per_frame] -> the samples that became final, perhaps none."""

    def peek(self) -> NDArray[np.float32]:
        """An estimate of the samples to come, as if the frames so far were all. Changes nothing."""

    def finish(self) -> NDArray[np.float32]:
        """The samples still held back. Nothing can be pushed afterwards."""

    def close(self) -> None:
        """Give up the stream's place. One that has ended has none."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be decoded of a stream."""

    stream: CodecStream
    frames: Tensor | None  # [f, codes_per_frame]
    last: bool = False  # no more will come
    keep: bool = True  # the stream goes on from here, or ends


class CodecStreams(Protocol):
    """Streams that are decoded together."""

    def open(self, seed: int | None) -> CodecStream:
        """A new stream; `seed` draws the noise of the codec's noise blocks, None turns it off."""

    def decode(self, parts: Sequence[Part]) -> list[NDArray[np.float32]]:
        """The samples of each part that are now final. A stream may have one part."""

    def prepare(self, first: int) -> None:
        """Get ready for a stream that begins with so many frames, beside whatever else is done,
        where that takes time."""

    def record(self, firsts: Iterable[int], groups: Collection[int]) -> None:
        """Get ready for streams that begin with one of `firsts` frames and go on with one of
        `groups`, where that takes time."""


class Codec(Protocol):
    """Frames to samples and back."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def samples_per_frame(self) -> int: ...

    @property
    def codes_per_frame(self) -> int: ...

    def streams(self, slots: int, graphs: bool) -> CodecStreams:
        """Room for `slots` streams at first; `graphs` records batches on a GPU."""

    def encode(self, samples: NDArray[np.float32]) -> Tensor:
        """Samples [n] -> frames [ceil(n / samples_per_frame), codes_per_frame]."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A voice to clone: its frames [f, codes_per_frame] and what they say."""

    frames: Tensor
    text: str


@dataclass(frozen=True, slots=True)
class Readable:
    """Text in the characters that a model reads, and what it cannot read, in order."""

    text: str
    left_out: tuple[str, ...] = ()  # characters as they were given, or whole emotion tags


class TextFamily(Protocol):
    """What a family knows about text before its weights are loaded."""

    @property
    def tags(self) -> Sequence[str]:
        """Sounds that it makes where the text has them in angle brackets."""

    @property
    def comfortable_chars(self) -> int:
        """Longest text that the model reads well in one go."""

    @property
    def alphabet(self) -> str | None:
        """Characters that it reads; None reads all of Unicode."""

    def language(self, voice: str | None) -> str:
        """ISO 639-1 code of the language that a voice speaks; None is a speaker without a name."""

    def readable(self, text: str) -> Readable:
        """Text with each character in a form that the model reads, or left out."""


class SpeechFamily(TextFamily, Protocol):
    """A family as who speaks sees it: prompts, voices, and how much fits in one go."""

    @property
    def name(self) -> str: ...

    @property
    def voices(self) -> Sequence[str]: ...

    def prompt(self, text: str, voice: str | None, reference: Reference | None) -> Prompt:
        """Token ids for one segment of text, as `readable` gives it."""

    def max_frames(self, text: str) -> int:
        """More frames than this text could need: beyond it the model has lost its way."""


class SpeechStream(Protocol):
    """Chunks of one utterance, as they are made; `stats` fill as they are read."""

    @property
    def stats(self) -> StreamStats: ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    def __next__(self) -> AudioChunk: ...

    def poll(self) -> AudioChunk | None:
        """The next chunk, if there is one by now; for readers of many streams."""


class Synthesizer(Protocol):
    """What `quaver.load` returns, for every family."""

    def advance(self) -> None:
        """Make a frame for every stream that runs; whoever waits for one stream need not."""

    def stream(
        self,
        text: str,
        *,
        voice: str | None = None,
        seed: int | None = None,
        max_seconds: float | None = None,
        live: bool = False,
        normalize: str = "auto",
        strict: bool = False,
    ) -> SpeechStream: ...

    def generate(
        self, text: str, *, voice: str | None = None, seed: int | None = None
    ) -> Audio: ...

    def info(self) -> dict[str, Any]: ...
