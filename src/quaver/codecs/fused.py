"""SNAC's decoder as streams, each layer a launch or two of Triton's kernels. `snac` says what it
computes, and what it remembers of a stream is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from quaver.nn.conv import Chunk, Conv1d, ConvTranspose1d, Snake
from quaver.nn.kernels.halves import halves
from quaver.nn.kernels.latents import Books, latents
from quaver.nn.kernels.layers import (
    FIRST,
    NOISE,
    TAPS,
    UNIT,
    Mix,
    Upsample,
    Window,
    draw,
    last,
    mix,
    recall,
    snake_rows,
    table_of,
    upsample,
)

if TYPE_CHECKING:
    from quaver.codecs.snac import DecoderBlock, NoiseBlock, ResidualUnit, Snac


class FusedDecoder:
    """A decoder's weights, laid out for the kernels: as they were when this was made."""

    def __init__(self, codec: Snac) -> None:
        exact = not codec.tf32
        wide, narrow, *blocks, snake, last_layer = codec.decoder.model
        self._books = _books(codec)
        snakes = [*(cast("DecoderBlock", block).block[0] for block in blocks), snake]
        first, *after = [snake_rows(cast("Snake", one).alpha) for one in snakes]
        self._wide, self._last = cast("Conv1d", wide), cast("Conv1d", last_layer)
        self._first = _first(self._wide, cast("Conv1d", narrow), first, exact)
        self._blocks = [
            _Block(cast("DecoderBlock", block), following, exact)
            for block, following in zip(blocks, after, strict=True)
        ]

    def __call__(self, frames: Tensor, chunk: Chunk, seeds: Tensor | None) -> Tensor:
        """Frames [n, f, codes]; rows, start and end of the chunk and seeds [n], each contiguous ->
        samples [n, 1, f * samples of a frame]."""
        x = latents(self._books, frames, chunk, 2 * self._first.padding)
        _remember(self._wide, x, chunk, 2 * self._first.padding)
        chunk.lag += self._first.padding
        x = mix(self._first, x, chunk, 1)
        for number, block in enumerate(self._blocks, 1):
            x = block(x, chunk, seeds, TAPS - 1 if number == len(self._blocks) else 1)
        _remember(self._last, x, chunk, TAPS - 1)
        chunk.lag += self._last.padding
        return last(self._last.weight, cast("Tensor", self._last.bias), x).tanh_()


class _Block:
    """Upsample, add noise, refine, and the snake of what follows."""

    def __init__(self, block: DecoderBlock, after: Tensor, exact: bool) -> None:
        _, up, *rest = block.block
        noise = rest[:-3]
        units = cast("list[ResidualUnit]", rest[-3:])
        self._up_layer = cast("ConvTranspose1d", up)
        self._up = Upsample.of(self._up_layer.weight, self._up_layer.bias, exact)
        self._noise = _noise(cast("NoiseBlock", noise[0]), exact) if noise else None
        last_unit = units[-1]
        self._units = [
            (unit, _unit(unit, after if unit is last_unit else None, exact)) for unit in units
        ]

    def __call__(self, x: Window, chunk: Chunk, seeds: Tensor | None, room: int) -> Window:
        """x after the block's own snake -> what comes out, after the next one, with room for what
        that layer remembers."""
        _remember(self._up_layer, x, chunk, 1)
        stride = self._up.stride
        chunk.rate, chunk.lag = chunk.rate * stride, chunk.lag * stride + stride // 2
        rooms = [2 * layer.padding for _, layer in self._units]
        noise = None if seeds is None else self._noise
        readers = [*(layer for _, layer in self._units), None]
        x = upsample(self._up, x, chunk, rooms[0], readers[0] if noise is None else None)
        if noise is not None and seeds is not None:
            stream, layer = noise
            x = mix(layer, x, chunk, rooms[0], draw(x, chunk, seeds, stream), readers[0])
        following = zip(self._units, [*rooms[1:], room], readers[1:], strict=True)
        for (unit, layer), more, reader in following:
            _remember(unit, x, chunk, 2 * layer.padding, layer.before)
            chunk.lag += layer.padding
            x = mix(layer, x, chunk, more, reader=reader)
        return x


def _remember(
    layer: nn.Module, x: Window, chunk: Chunk, count: int, snake: Tensor | None = None
) -> None:
    """As `Chunk.window`, in place."""
    recall(x, chunk.memory.of(layer, x.x, count), chunk, snake)


def _books(codec: Snac) -> Books:
    books = codec.quantizer.books
    weights = [book.out_proj.weight[..., 0] for book in books]
    biases = [cast("Tensor", book.out_proj.bias) for book in books]
    positions = torch.arange(codec.codes_per_frame, device=codec.device)[None]
    of_books = zip(codec.layout.to_codebooks(positions), codec.config.vq_strides, strict=True)
    places = [own.repeat_interleave(stride) for own, stride in of_books]
    return Books(
        torch.stack([book.codebook.weight for book in books]),
        torch.stack(weights),
        torch.stack(biases).sum(0),
        torch.stack(places),
    )


def _first(wide: Conv1d, narrow: Conv1d, after: Tensor, exact: bool = True) -> Mix:
    table = table_of(wide.weight, cast("Tensor", wide.bias), None)
    return Mix(FIRST, halves(narrow.weight[..., 0], exact), narrow.bias, table, after=after)


def _noise(block: NoiseBlock, exact: bool = True) -> tuple[int, Mix]:
    return block.index, Mix(NOISE, halves(block.linear.weight[..., 0], exact))


def _unit(unit: ResidualUnit, after: Tensor | None, exact: bool = True) -> Mix:
    snake, wide, snake2, narrow = unit.block
    wide, narrow = cast("Conv1d", wide), cast("Conv1d", narrow)
    first, second = [cast("Snake", one).alpha for one in (snake, snake2)]
    table = table_of(wide.weight, cast("Tensor", wide.bias), second)
    weight = halves(narrow.weight[..., 0], exact)
    return Mix(UNIT, weight, narrow.bias, table, wide.dilation, snake_rows(first), after)
