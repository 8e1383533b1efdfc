"""SNAC, the multi-scale neural codec of Siuzdak et al. (2024), decoder and encoder.

Three codebooks at 1/4, 1/2 and 1 times the latent rate; a frame is four latents, 7 codes and 2,048
samples. Modules are named as in the released checkpoints, so their tensor names need no table.

Decoding is exact as a stream: see `quaver.nn.conv`, and `streams` for many. The noise blocks of the
decoder are active at inference in the released model; here their noise is an argument, a pure
function of a seed, so that results repeat, or None for silence in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.codecs.layout import CodeLayout
from quaver.codecs.streams import SnacStream, SnacStreams
from quaver.core.errors import CheckpointError, InputError
from quaver.core.random import normal, seed_key, stream_key
from quaver.core.section import Section, shown
from quaver.nn.conv import Chunk, Conv1d, ConvTranspose1d, Snake, convolutions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quaver.codecs.fused import FusedDecoder

DILATIONS = (1, 3, 9)
STRIDES = (4, 2, 1)  # of the codebooks, in latents
# The most that a configuration may ask for, several times what is published.
MAX_CHANNELS, MAX_BLOCKS, MAX_FRAME = 2**14, 8, 2**17
_OPTIONAL = frozenset({"noise", "depthwise", "latent_dim", "attn_window_size"})
# What Hugging Face's tools add to any configuration.
_METADATA = frozenset(
    {"_name_or_path", "architectures", "dtype", "model_type", "torch_dtype", "transformers_version"}
)


@dataclass(frozen=True, slots=True)
class SnacConfig:
    """The released `config.json`, key by key."""

    sampling_rate: int
    encoder_dim: int
    encoder_rates: tuple[int, ...]
    decoder_dim: int
    decoder_rates: tuple[int, ...]
    codebook_size: int
    codebook_dim: int
    vq_strides: tuple[int, ...]
    noise: bool = True
    depthwise: bool = True
    attn_window_size: int | None = None
    latent_dim: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "SNAC config.json") -> SnacConfig:
        """Read the values of `file`. Strict: unknown and missing keys are named. Raises
        CheckpointError for what is not supported, too."""
        section = Section(values, file)
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known - _METADATA)
        absent = {key for key in known - _OPTIONAL if not section.has(key)}
        if unknown or absent:
            # lists of names, as far as a line goes
            raise CheckpointError(
                f"{file}: unknown keys {shown(unknown)}, missing {shown(sorted(absent))}"
            )
        _supported(section)
        config = cls(
            sampling_rate=section.whole("sampling_rate", 8000, 48000),
            encoder_dim=section.whole("encoder_dim", 1, MAX_CHANNELS),
            encoder_rates=section.wholes("encoder_rates", 2, 64, MAX_BLOCKS, even=True),
            decoder_dim=section.whole("decoder_dim", 1, MAX_CHANNELS),
            decoder_rates=section.wholes("decoder_rates", 2, 64, MAX_BLOCKS, even=True),
            codebook_size=section.whole("codebook_size", 2, 2**18),
            codebook_dim=section.whole("codebook_dim", 1, 1024),
            vq_strides=STRIDES,
            noise=section.flag("noise", True),
            latent_dim=section.whole("latent_dim", 1, MAX_CHANNELS, None),
        )
        _check_widths(section, config)
        return config

    @property
    def latent(self) -> int:
        return self.latent_dim or self.encoder_dim * 2 ** len(self.encoder_rates)

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.encoder_rates) * self.vq_strides[0]


def _supported(section: Section) -> None:
    """CheckpointError for a SNAC of another layout."""
    values, problem = section.values, None
    if section.has("attn_window_size"):
        problem = f"attn_window_size {shown(values['attn_window_size'])}; only null (24 kHz)"
    elif (strides := section.wholes("vq_strides", 1, 1024, 16)) != STRIDES:
        problem = f"vq_strides {strides}; only {list(STRIDES)}"
    elif not section.flag("depthwise", True):
        problem = "depthwise false; only true"
    if problem:
        raise CheckpointError(f"{section.file} has {problem} is supported")


def _check_widths(section: Section, config: SnacConfig) -> None:
    """CheckpointError where channels or rates do not fit each other."""
    if math.prod(config.encoder_rates) != math.prod(config.decoder_rates):
        allowed = f"rates whose product is that of encoder_rates {list(config.encoder_rates)}"
        raise section.error("decoder_rates", config.decoder_rates, allowed)
    if config.samples_per_frame > MAX_FRAME:
        allowed = f"rates with frames of at most {MAX_FRAME:,} samples"
        raise section.error("encoder_rates", config.encoder_rates, allowed)
    if config.decoder_dim % 2 ** len(config.decoder_rates):
        allowed = f"numbers that can be halved for each of {len(config.decoder_rates)} rates"
        raise section.error("decoder_dim", config.decoder_dim, allowed)
    made = config.encoder_dim * 2 ** len(config.encoder_rates)
    if made > MAX_CHANNELS:
        allowed = f"numbers that doubled for each rate stay within {MAX_CHANNELS:,}"
        raise section.error("encoder_dim", config.encoder_dim, allowed)
    if config.latent != made:
        raise section.error("latent_dim", config.latent, f"null or {made}, what the encoder makes")


class ResidualUnit(nn.Module):
    """x + conv1(snake(conv7(snake(x)))), the wide convolution depthwise and dilated."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [
                Snake(channels),
                Conv1d(channels, channels, 7, dilation=dilation, groups=channels),
                Snake(channels),
                Conv1d(channels, channels, 1),
            ]
        )
        self.padding = 3 * dilation

    def forward(self, x: Tensor, chunk: Chunk | None = None) -> Tensor:
        """x [n, channels, t]. As a stream, the skip path waits for the convolution's."""
        snake, wide, snake2, mix = self.block
        if chunk is None:
            return x + mix(snake2(wide(snake(x))))
        window = chunk.window(self, x, 2 * self.padding)
        chunk.lag += self.padding
        skip = window[..., self.padding : -self.padding]
        return chunk.clean(skip + mix(snake2(cast("Conv1d", wide).convolve(snake(window), 0))))


class NoiseBlock(nn.Module):
    """x + noise * (W x): one noise value a sample, shared by the channels."""

    def __init__(self, channels: int, index: int) -> None:
        super().__init__()
        self.linear = Conv1d(channels, channels, 1, bias=False)
        self.index = index

    def forward(self, x: Tensor, chunk: Chunk | None, seeds: Tensor | None) -> Tensor:
        """x [n, channels, t]; seeds [n] int64, or None for no noise."""
        if seeds is None:
            return x
        count = x.shape[-1]
        if chunk is None:
            positions = torch.arange(count, device=x.device)[None]
        else:
            positions = chunk.positions(count)
        key = stream_key(seed_key(seeds[:, None, None]), self.index)
        return x + normal(key, positions[:, None]).to(x.dtype) * self.linear(x)


class DecoderBlock(nn.Module):
    """Upsample, add noise, refine."""

    def __init__(self, channels: int, stride: int, index: int, noise: bool) -> None:
        super().__init__()
        half = channels // 2
        self.block = nn.ModuleList([Snake(channels), ConvTranspose1d(channels, half, stride)])
        if noise:
            self.block.append(NoiseBlock(half, index))
        self.block.extend(ResidualUnit(half, dilation) for dilation in DILATIONS)

    def forward(self, x: Tensor, chunk: Chunk | None, seeds: Tensor | None) -> Tensor:
        for part in self.block:
            if isinstance(part, NoiseBlock):
                x = part(x, chunk, seeds)
            else:
                x = part(x) if isinstance(part, Snake) else part(x, chunk)
        return x


class Decoder(nn.Module):
    """Latents [n, latent, t] -> samples [n, 1, t * product of rates]."""

    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        width = config.decoder_dim
        self.model = nn.ModuleList(
            [
                Conv1d(config.latent, config.latent, 7, groups=config.latent),
                Conv1d(config.latent, width, 1),
            ]
        )
        for index, rate in enumerate(config.decoder_rates):
            self.model.append(DecoderBlock(width, rate, index, config.noise))
            width //= 2
        self.model.extend([Snake(width), Conv1d(width, 1, 7)])
        self.has_kernels = all(rate & (rate - 1) == 0 for rate in config.decoder_rates)

    def forward(self, z: Tensor, chunk: Chunk | None = None, seeds: Tensor | None = None) -> Tensor:
        wide, narrow, *blocks, snake, last = self.model
        z = narrow(wide(z, chunk))
        if chunk is not None:
            z = chunk.clean(z)
        for block in blocks:
            z = block(z, chunk, seeds)
        out: Tensor = last(snake(z), chunk)
        return out.tanh()


class EncoderBlock(nn.Module):
    """Refine, then downsample to twice the channels."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualUnit(channels, dilation) for dilation in DILATIONS)
        self.block.extend(
            [Snake(channels), Conv1d(channels, 2 * channels, 2 * stride, stride=stride)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for part in self.block:
            x = part(x)
        return x


class Encoder(nn.Module):
    """Samples [n, 1, t] -> latents [n, latent, t / product of rates]."""

    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        width = config.encoder_dim
        self.block = nn.ModuleList([Conv1d(1, width, 7)])
        for rate in config.encoder_rates:
            self.block.append(EncoderBlock(width, rate))
            width *= 2
        self.block.append(Conv1d(width, width, 7, groups=width))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.block:
            x = part(x)
        return x


class VectorQuantizer(nn.Module):
    """One codebook, looked up by cosine in a small projected space (Yu et al., 2022)."""

    def __init__(self, config: SnacConfig, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.in_proj = Conv1d(config.latent, config.codebook_dim, 1)
        self.out_proj = Conv1d(config.codebook_dim, config.latent, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    def project(self, z: Tensor) -> Tensor:
        """z [n, latent, t] -> [n, codebook_dim, t / stride]."""
        if self.stride > 1:
            z = F.avg_pool1d(z, self.stride, self.stride)
        return self.in_proj(z)

    def nearest(self, projected: Tensor) -> Tensor:
        """[n, codebook_dim, t] -> indices [n, t] of the nearest codewords on the unit sphere."""
        points = F.normalize(projected.transpose(1, 2), dim=-1)
        words = F.normalize(self.codebook.weight, dim=-1)
        # The norms are one up to rounding; they stay in because ties must break as in the original.
        distance = (
            points.square().sum(-1, keepdim=True)
            - 2 * points @ words.t()
            + words.square().sum(-1)[None, None]
        )
        return distance.argmin(dim=-1)

    def expand(self, words: Tensor) -> Tensor:
        """Codewords [n, codebook_dim, t] -> latents [n, latent, t * stride]."""
        out: Tensor = self.out_proj(words)
        return out.repeat_interleave(self.stride, dim=-1) if self.stride > 1 else out

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [n, t] -> latents [n, latent, t * stride]."""
        return self.expand(self.codebook(codes).transpose(1, 2))


class Quantizer(nn.Module):
    """Residual quantisation: each book codes what the ones before left over."""

    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(VectorQuantizer(config, s) for s in config.vq_strides)

    @property
    def books(self) -> list[VectorQuantizer]:
        """The codebooks, coarsest first."""
        return cast("list[VectorQuantizer]", list(self.quantizers))

    def encode(self, z: Tensor) -> list[Tensor]:
        """Latents [n, latent, t] -> codes per book, [n, t / stride]."""
        codes = []
        for book in self.books:
            codes.append(book.nearest(book.project(z)))
            z = z - book.decode(codes[-1])
        return codes

    def decode(self, codes: list[Tensor]) -> Tensor:
        """Codes per book -> latents [n, latent, t]."""
        pairs = zip(self.books, codes, strict=True)
        return torch.stack([book.decode(c) for book, c in pairs]).sum(0)


class Snac(nn.Module):
    """The codec. Weights are uninitialised until loaded."""

    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = CodeLayout(0, config.codebook_size)
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config)
        self.decoder = Decoder(config)
        self.tf32 = False  # whether a GPU may multiply fp32 as TF32 while it decodes
        self._fused: FusedDecoder | None = None

    @torch.no_grad()
    def fuse(self) -> None:
        """Let streams take the decoder's kernels from now on, if there are any for its shape, with
        the weights as they are now. For GPUs whose tensor cores multiply fp16."""
        # only builds of torch for GPUs bring Triton
        from quaver.codecs.fused import FusedDecoder

        self._fused = FusedDecoder(self) if self.decoder.has_kernels else None

    @property
    def sample_rate(self) -> int:
        return self.config.sampling_rate

    @property
    def samples_per_frame(self) -> int:
        return self.config.samples_per_frame

    @property
    def codes_per_frame(self) -> int:
        return self.layout.codes_per_frame

    @property
    def device(self) -> torch.device:
        return self.quantizer.books[0].codebook.weight.device

    def encode_batch(self, samples: Tensor) -> Tensor:
        """Samples [n, t] -> frames [n, ceil(t / samples_per_frame), codes_per_frame]."""
        padding = -samples.shape[-1] % self.samples_per_frame
        x = F.pad(samples, (0, padding))[:, None]
        return self.layout.from_codebooks(self.quantizer.encode(self.encoder(x)))

    def decode_batch(self, frames: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Frames [n, f, codes_per_frame] -> samples [n, f * samples_per_frame]."""
        latents = self.quantizer.decode(self.layout.to_codebooks(frames))
        out: Tensor = self.decoder(latents, None, seeds)
        return out[:, 0]

    @torch.inference_mode()
    def encode(self, samples: NDArray[np.float32]) -> Tensor:
        """Samples [t] at `sample_rate` -> frames [f, codes_per_frame]."""
        if samples.ndim != 1 or not len(samples):
            raise InputError(f"audio has shape {samples.shape}; mono samples [n] are needed")
        self.encoder.to(self.device)  # it may lie on the host, which speaking has no use for
        with convolutions():
            return self.encode_batch(torch.from_numpy(samples)[None].to(self.device))[0]

    @property
    def lag(self) -> int:
        """Samples that come out of a stream behind the frames that went in."""
        first, *_, last = self.decoder.model
        lag: int = cast("Conv1d", first).padding
        for rate in self.config.decoder_rates:
            lag = lag * rate + rate // 2 + sum(3 * dilation for dilation in DILATIONS)
        return lag + cast("Conv1d", last).padding

    def decode_chunk(self, frames: Tensor, chunk: Chunk, seeds: Tensor | None) -> Tensor:
        """Frames [n, f, codes_per_frame] of n streams -> samples [n, f * samples_per_frame], those
        that lie `lag` behind; the frames behind a stream's end may be any."""
        if self._fused is not None:
            return self._fused(frames, chunk, seeds)[:, 0]
        latents = chunk.clean(self.quantizer.decode(self.layout.to_codebooks(frames)))
        out: Tensor = self.decoder(latents, chunk, seeds)
        return out[:, 0]

    def streams(self, slots: int = 1, graphs: bool = False) -> SnacStreams:
        return SnacStreams(self, slots, graphs)

    def stream(self, seed: int | None) -> SnacStream:
        return self.streams().open(seed)
