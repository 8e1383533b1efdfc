"""The streams of a codec, decoded together.

A codec is some hundred small layers, which a GPU runs better for many streams at once: 8 frames of
32 took an H200 28 ms, and of one 3. What is to be decoded at one time is therefore a batch,
whatever stream it is of. On a GPU with `graphs` a batch is one launch, beside whatever else runs
there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from quaver.core.errors import InputError
from quaver.core.protocols import Part
from quaver.nn.conv import Chunk, Memory, convolutions
from quaver.nn.recorded import Recorded, unrecorded
from quaver.nn.sent import Fetched, fetched

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quaver.codecs.snac import Snac

MOST_TOGETHER = 32  # streams of a batch, which bounds what it takes
LAST_STEP = 4  # recorded, the last frames of a stream are a multiple of this many
MOST_RECORDED = 16  # frames
ENDLESS = 1 << 40


class SnacStream:
    """Frames of one stream to samples. Close it, or finish it, and its place is free."""

    def __init__(self, streams: SnacStreams, row: int, seed: int | None) -> None:
        self._streams, self.row, self.seed = streams, row, seed
        self.frames = 0  # that went in
        self.ended = False

    def push(self, frames: Tensor) -> NDArray[np.float32]:
        """Frames [n, codes_per_frame] -> the samples that are now final, perhaps none."""
        return self._streams.decode([Part(self, frames)])[0]

    def peek(self) -> NDArray[np.float32]:
        """The samples still to come if the stream ended here."""
        return self._streams.decode([Part(self, None, last=True, keep=False)])[0]

    def finish(self) -> NDArray[np.float32]:
        """The samples still held back. Nothing can be pushed afterwards."""
        return self._streams.decode([Part(self, None, last=True)])[0]

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self._streams.free(self)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What must be one for parts to be a batch."""

    frames: int
    edges: bool
    noise: bool
    keep: bool


class SnacStreams:
    """Some streams of one codec, and what is remembered of them."""

    def __init__(self, codec: Snac, slots: int, graphs: bool) -> None:
        self._codec, self._device = codec, codec.device
        self._free = list(range(slots, 0, -1))  # row 0 fills up batches
        self._rows = slots + 1
        self._memory = Memory(self._rows)
        self._lag = -(-codec.lag // codec.samples_per_frame)  # frames
        self._recorded = Recorded() if graphs and self._device.type == "cuda" else None
        self._inputs: dict[tuple[_Shape, int], Tensor] = {}
        self._outputs: dict[tuple[_Shape, int], Tensor] = {}
        self._prepared: Future[None] | None = None
        # first, where both want to run: who waits for sound waits for little more
        self._side = (
            None if self._recorded is None else torch.cuda.Stream(self._device, priority=-1)
        )
        if self._side is not None:  # behind the codec's weights, which may only just be laid out
            self._side.wait_stream(torch.cuda.current_stream(self._device))

    def open(self, seed: int | None) -> SnacStream:
        """A new stream; `seed` draws the noise of the codec's noise blocks, None turns it off."""
        self._settle()
        if not self._free:
            self._free = list(range(2 * self._rows - 1, self._rows - 1, -1))
            self._rows *= 2
            with self._place():
                self._memory.grow(self._rows)
            if self._recorded is not None:  # the memory has moved
                self._recorded = Recorded()
        return SnacStream(self, self._free.pop(), seed)

    def prepare(self, first: int) -> None:
        """Decode so many frames of nobody's in a thread: the first time of a process takes longer,
        and seconds where kernels have never been built."""
        if self._recorded is None:
            return
        shape = _Shape(first, edges=True, noise=True, keep=True)

        def decode() -> None:
            with unrecorded(), self._place():
                self._decode(shape, self._pack(shape, [], 1).to(self._device))

        helper = ThreadPoolExecutor(1, "codec")
        self._prepared = helper.submit(decode)
        helper.shutdown(wait=False)

    def _settle(self) -> None:
        """Wait for `prepare`."""
        if self._prepared is not None:
            self._prepared.result()
            self._prepared = None

    def record(self, firsts: Iterable[int], groups: Collection[int]) -> None:
        """Record batches of any number of streams, each of which begins with one of `firsts`
        frames, goes on with one of `groups`, and ends, or is looked at as if it did."""
        if self._recorded is None:
            return
        self._settle()
        step = LAST_STEP
        ends = range(_up(self._lag, step), _up(self._lag + max(groups), step) + 1, step)
        shapes = [_Shape(frames, edges=True, noise=True, keep=True) for frames in firsts]
        shapes += [_Shape(frames, edges=False, noise=True, keep=True) for frames in groups]
        shapes += [_Shape(frames, True, True, keep) for frames in ends for keep in (True, False)]
        counts = [1 << power for power in range(MOST_TOGETHER.bit_length())]
        for shape, count in product(shapes, counts):
            for _ in range(2):  # the first of a shape runs as it is
                with self._place():
                    self._run(shape, self._pack(shape, [], count))

    def free(self, stream: SnacStream) -> None:
        self._free.append(stream.row)

    def decode(self, parts: Sequence[Part]) -> list[NDArray[np.float32]]:
        """The samples of each part that are now final. A stream may have one part."""
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(parts)
        alike: dict[_Shape, list[int]] = defaultdict(list)
        for index, part in enumerate(parts):
            if _own(part).ended:
                raise InputError("the stream has ended; open another one")
            if _count(part) or (part.last and _own(part).frames):
                alike[self._shape(part)].append(index)
        batches: list[tuple[list[int], Fetched]] = []
        for shape, indices in alike.items():
            for first in range(0, len(indices), MOST_TOGETHER):
                own = indices[first : first + MOST_TOGETHER]
                batches.append((own, self._batch(shape, [parts[index] for index in own])))
        for own, batch in batches:
            for index, row in zip(own, batch.wait().numpy(), strict=True):
                out[index] = self._final(parts[index], row)
        for part in parts:
            if part.keep:
                _own(part).frames += _count(part)
                if part.last:
                    part.stream.close()
        return out

    def _shape(self, part: Part) -> _Shape:
        frames = _count(part)
        if part.last:  # what lags behind comes out as any frames go in
            frames += self._lag
            if self._recorded is not None:
                frames = _up(frames, LAST_STEP)
        stream = _own(part)
        edges = part.last or stream.frames < self._lag
        return _Shape(frames, edges, stream.seed is not None, part.keep)

    def _batch(self, shape: _Shape, parts: list[Part]) -> Fetched:
        """Samples of parts of one shape, float32 [n, frames * samples_per_frame]. A GPU makes them
        while the next batch is packed."""
        count = len(parts)
        if self._recorded is not None:
            count = 1 << (count - 1).bit_length()
        given = self._pack(shape, parts, count)
        with self._place():
            return fetched(self._run(shape, given)[: len(parts)].float())

    def _pack(self, shape: _Shape, parts: list[Part], count: int) -> Tensor:
        """All that a batch hangs on, int64 [count, 4 + frames * codes_per_frame], on the host."""
        width = 4 + shape.frames * self._codec.codes_per_frame
        pinned = self._device.type == "cuda"  # so that nothing waits for the copy from there
        given = torch.zeros(count, width, dtype=torch.int64, pin_memory=pinned)
        rows = given.numpy()  # which takes little numbers faster
        rows[:, 2] = ENDLESS
        for row, part in zip(rows, parts, strict=False):
            stream, frames = _own(part), _count(part)
            end = stream.frames + frames if part.last else ENDLESS
            row[:4] = stream.row, stream.frames, end, stream.seed or 0
            if part.frames is not None:
                row[4 : 4 + part.frames.numel()] = part.frames.numpy(force=True).ravel()
        return given

    def _run(self, shape: _Shape, given: Tensor) -> Tensor:
        recorded, key = self._recorded, (shape, len(given))
        if recorded is None or shape.frames > MOST_RECORDED:
            return self._decode(shape, given.to(self._device, non_blocking=True))
        if key not in self._inputs:
            self._inputs[key] = torch.empty_like(given, device=self._device)
        self._inputs[key].copy_(given, non_blocking=True)

        def decode() -> None:
            samples = self._decode(shape, self._inputs[key])
            if key not in self._outputs:
                self._outputs[key] = torch.empty_like(samples)
            self._outputs[key].copy_(samples)

        recorded.run(key, decode)
        return self._outputs[key]

    @torch.inference_mode()
    def _decode(self, shape: _Shape, given: Tensor) -> Tensor:
        codec = self._codec
        rows, start, end, seeds = given[:, :4].t().contiguous()
        frames = given[:, 4:].view(len(given), shape.frames, -1)
        rate = codec.config.vq_strides[0]
        chunk = Chunk(self._memory, rows, start, end, shape.edges, shape.keep, rate)
        with convolutions(codec.tf32):
            return codec.decode_chunk(frames, chunk, seeds if shape.noise else None)

    def _final(self, part: Part, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of a batch's row, what lies within the stream."""
        each, start = self._codec.samples_per_frame, _own(part).frames
        first = start * each - self._codec.lag
        stop = (start + _count(part)) * each if part.last else first + len(samples)
        return samples[max(0, -first) : max(0, stop - first)]

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Beside what else the GPU does: nothing here hangs on that."""
        if self._side is None:
            yield
            return
        with torch.cuda.stream(self._side):
            yield


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _own(part: Part) -> SnacStream:
    return cast("SnacStream", part.stream)


def _count(part: Part) -> int:
    return 0 if part.frames is None else len(part.frames)
