"""What the codes of residual codebooks stand for, in one launch: looked up, projected, added up."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.conv import Chunk
from quaver.nn.kernels.conv import within
from quaver.nn.kernels.launch import on, starting_early, turn
from quaver.nn.kernels.layers import Window

CHANNELS = 128  # of a program


@dataclass(frozen=True, slots=True)
class Books:
    """Codebooks, and which of a frame's codes each step of it is made of."""

    words: Tensor  # fp32 [books, size, dim]
    weight: Tensor  # fp32 [books, channels, dim]
    bias: Tensor  # fp32 [channels], of all books
    places: Tensor  # int64 [books, steps of a frame]


@triton.jit(do_not_specialize=["frames"])
def _latents(
    codes_pointer,
    words_pointer,
    weight_pointer,
    bias_pointer,
    places_pointer,
    out_pointer,
    start_pointer,
    end_pointer,
    frames,
    codes,
    size,
    dim,
    channels,
    row,
    lead,
    books: tl.constexpr,
    steps: tl.constexpr,
    block_dim: tl.constexpr,
    block_channels: tl.constexpr,
    early: tl.constexpr,
):
    """Some channels of one frame of one stream."""
    turn(early)
    stream, frame = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * block_channels + tl.arange(0, block_channels)
    d = tl.arange(0, block_dim)
    step = tl.arange(0, steps)
    inside = c < channels
    total = tl.zeros((block_channels, steps), tl.float32)
    total += tl.load(bias_pointer + c, mask=inside, other=0.0)[:, None]
    for book in tl.static_range(books):
        place = tl.load(places_pointer + book * steps + step)
        code = tl.load(codes_pointer + (stream * frames + frame) * codes + place)
        words = words_pointer + (book * size + code)[:, None] * dim + d[None, :]
        words = tl.load(words, mask=d[None, :] < dim, other=0.0)
        weight = weight_pointer + (book * channels + c)[:, None] * dim + d[None, :]
        weight = tl.load(weight, mask=inside[:, None] & (d[None, :] < dim), other=0.0)
        total += tl.sum(weight[:, None, :] * words[None, :, :], 2)
    step += frame * steps
    total = tl.where(
        within(stream, step, start_pointer, end_pointer, steps, 0)[None, :], total, 0.0
    )
    out = out_pointer + (stream * channels + c)[:, None] * row + lead + step[None, :]
    tl.store(out, total, mask=inside[:, None])


def latents(books: Books, frames: Tensor, chunk: Chunk, room: int) -> Window:
    """Frames [n, f, codes], int64 -> fp32 [n, channels, f * steps of a frame], zero outside of the
    streams, with `room` for what the next layer remembers."""
    n, count, codes = frames.shape
    (kinds, size, dim), channels = books.words.shape, len(books.bias)
    steps = books.places.shape[1]
    out = Window.empty(n, channels, count * steps, room, books.words)
    frames = frames.contiguous()
    with on(frames.device):
        _latents[(n, count, triton.cdiv(channels, CHANNELS))](
            frames,
            books.words,
            books.weight,
            books.bias,
            books.places,
            out.whole,
            chunk.start,
            chunk.end,
            count,
            codes,
            size,
            dim,
            channels,
            out.whole.shape[2],
            out.lead,
            books=kinds,
            steps=steps,
            block_dim=triton.next_power_of_2(dim),
            block_channels=min(CHANNELS, triton.next_power_of_2(channels)),
            **starting_early(frames.device),
        )
    return out
