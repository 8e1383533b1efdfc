"""Training a SNAC from scratch: spectral loss first, critics once the codes have settled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from quaver.checkpoints.write import write_checkpoint
from quaver.codecs.snac import ResidualUnit, Snac, SnacConfig, VectorQuantizer
from quaver.core.errors import ConfigError
from quaver.nn.conv import Conv1d, ConvTranspose1d
from quaver.train.config import CodecConfig, DataConfig
from quaver.train.data import read_shards
from quaver.train.discriminators import Critics
from quaver.train.files import replace_folder
from quaver.train.loop import Losses
from quaver.train.losses import MelLoss, discriminator_loss, generator_loss

VALIDATION_CLIPS = 64


class CodecTask:
    """One codec in training; see `quaver.train.loop.Task`."""

    def __init__(self, config: CodecConfig, data: DataConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        torch.manual_seed(config.seed)
        self._snac_config = SnacConfig.from_dict(config.model)
        self._crop = config.crop_samples
        _check_shapes(config, data, self._snac_config)
        train, validation = _load_samples(config, data)
        self._samples, self._held_out = train.to(device), validation.to(device)
        self._snac = Snac(self._snac_config)
        initialise(self._snac)
        self._snac.to(device)
        self._critics = Critics().to(device)
        self._mel = MelLoss(data.sample_rate, config.mel_scales).to(device)
        for book in self._snac.quantizer.books:
            book.codebook.requires_grad_(False)
        self._optimisers = [
            torch.optim.AdamW(
                model.parameters(), betas=(0.8, 0.99), weight_decay=0.0, fused=device.type == "cuda"
            )
            for model in (self._snac, self._critics)
        ]
        self._averages = [CodebookAverage(book) for book in self._snac.quantizer.books]
        if config.compile and device.type == "cuda":
            for part in (self._snac.encoder, self._snac.decoder, self._mel, self._critics):
                part.compile()

    def step(self, step: int, rate: float) -> dict[str, Tensor]:
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        wanted = self._crops(self._samples, step, self._config.batch)
        if step == 0:
            centre(self._snac, wanted)
        made, quantisation = self._reconstruct(wanted, step)
        losses = {"mel": self._mel(made, wanted), "quantisation": quantisation}
        total = (
            self._config.weight_mel * losses["mel"]
            + self._config.weight_quantisation * quantisation
        )
        if step >= self._config.adversarial_from:
            losses["critic"] = self._train_critics(made.detach(), wanted)
            losses["adversarial"], losses["features"] = self._judge(made, wanted)
            total = (
                total
                + self._config.weight_adversarial * losses["adversarial"]
                + self._config.weight_features * losses["features"]
            )
        _update(self._optimisers[0], total, self._snac, 10.0)
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def validate(self) -> Losses:
        wanted = self._crops(self._held_out, 0, VALIDATION_CLIPS)
        with torch.compiler.set_stance("force_eager"):  # not worth compiling for these shapes
            frames = self._snac.encode_batch(wanted)
            made = self._snac.decode_batch(frames)
            losses = {"mel": float(self._mel(made, wanted))}
        for book, codes in enumerate(self._snac.layout.to_codebooks(frames)):
            share = codes.flatten().bincount(minlength=self._snac_config.codebook_size).float()
            share = share / share.sum()
            entropy = -(share * share.clamp(min=1e-9).log()).sum()
            losses[f"perplexity{book}"] = float(entropy.exp())
        return losses

    def state(self) -> dict[str, Any]:
        return {
            "snac": self._snac.state_dict(),
            "critics": self._critics.state_dict(),
            "optimisers": [o.state_dict() for o in self._optimisers],
            "averages": [{"sums": a.sums, "counts": a.counts} for a in self._averages],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._snac.load_state_dict(state["snac"])
        self._critics.load_state_dict(state["critics"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for average, saved in zip(self._averages, state["averages"], strict=True):
            average.sums.copy_(saved["sums"])
            average.counts.copy_(saved["counts"])

    def export(self, folder: Path) -> None:
        """Weights in bfloat16 with the weight norm folded in."""
        tensors = {
            name.replace("parametrizations.weight.original0", "weight"): parameter
            for name, parameter in self._snac.named_parameters()
            if not name.endswith("original1")
        }
        for name, module in self._snac.named_modules():
            if parametrize.is_parametrized(module):
                tensors[f"{name}.weight"] = module.weight
        half = {k: v.detach().bfloat16().cpu().contiguous() for k, v in tensors.items()}
        with replace_folder(folder) as fresh:
            write_checkpoint(fresh, half, config=self._config.model)

    def _crops(self, samples: Tensor, step: int, count: int) -> Tensor:
        """Random clips [count, crop] as float; the same ones for the same step."""
        generator = np.random.default_rng((self._config.seed, step))
        starts = generator.integers(0, len(samples) - self._crop, size=count)
        index = torch.from_numpy(starts).to(self._device)[:, None] + torch.arange(
            self._crop, device=self._device
        )
        return samples[index].float() / 32768.0

    def _reconstruct(self, wanted: Tensor, step: int) -> tuple[Tensor, Tensor]:
        quantised, loss = quantise(
            self._snac.encoder(wanted[:, None]),
            self._averages,
            discrete=step >= self._config.discrete_from,
        )
        seeds = step * len(wanted) + torch.arange(len(wanted), device=self._device)
        return self._snac.decoder(quantised, None, seeds)[:, 0], loss

    def _train_critics(self, made: Tensor, wanted: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16):
            loss = discriminator_loss(self._critics(wanted), self._critics(made))
        _update(self._optimisers[1], loss, self._critics, 10.0)
        return loss.detach()

    def _judge(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self._device.type, torch.bfloat16):
            with torch.no_grad():
                real = self._critics(wanted)
            return generator_loss(real, self._critics(made))


def initialise(snac: Snac) -> None:
    """Variance-keeping weights with quiet residual branches, under weight norm while they train.

    Much smaller weights would make silence, on which the logarithmic loss has no slope.
    """
    gains = {id(m.block[-1]): 0.1 for m in snac.modules() if isinstance(m, ResidualUnit)}
    gains[id(snac.encoder.block[0])] = 8.0  # speech is quiet: to unit power, and back
    gains[id(snac.decoder.model[-1])] = 0.05
    for module in snac.modules():
        if isinstance(module, Conv1d | ConvTranspose1d):
            fan_in = module.weight[0].numel()
            if isinstance(module, ConvTranspose1d):
                fan_in = 2 * module.weight.shape[0]  # two inputs reach each output
            gain = gains.get(id(module), 1.0)
            nn.init.normal_(module.weight, std=gain * fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            weight_norm(module)


@torch.no_grad()
def centre(snac: Snac, samples: Tensor) -> None:
    """Move each book's inputs [n, t] around zero: directions say nothing of an offset cloud."""
    z = snac.encoder(samples[:, None])
    for book in snac.quantizer.books:
        projected = book.project(z)
        bias = book.in_proj.bias
        assert bias is not None
        bias.sub_(projected.mean(dim=(0, 2)))
        z = z - book.expand(F.normalize(book.project(z), dim=1))


class CodebookAverage:
    """Codewords as running means of what maps to them, on the unit sphere.

    Lookup is by direction, so codewords and inputs are kept at length one: lengths that training
    is free to choose grow until it breaks. Words that little maps to start anew from the batch.
    """

    def __init__(self, book: VectorQuantizer, decay: float = 0.99, alive: float = 0.5) -> None:
        self.book, self._decay, self._alive = book, decay, alive
        self.sums = book.codebook.weight.detach().clone()
        self.counts = torch.zeros(len(self.sums), device=self.sums.device)

    @torch.no_grad()
    def update(self, points: Tensor, codes: Tensor) -> None:
        """Unit inputs [n, codebook_dim] and the codes [n] that they got."""
        self.counts.mul_(self._decay).add_(
            codes.bincount(minlength=len(self.counts)), alpha=1 - self._decay
        )
        self.sums.mul_(self._decay).index_add_(0, codes, points, alpha=1 - self._decay)
        even = len(points) / len(self.counts)  # uses a step if all words were used alike
        dead = self.counts < self._alive * even
        fresh = points[torch.randint(len(points), (len(dead),), device=points.device)]
        self.sums.copy_(torch.where(dead[:, None], even * fresh, self.sums))
        self.counts.masked_fill_(dead, even)
        self.book.codebook.weight.copy_(F.normalize(self.sums, dim=-1))


def quantise(
    z: Tensor, averages: Sequence[CodebookAverage], discrete: bool
) -> tuple[Tensor, Tensor]:
    """Residual quantisation with straight-through gradients (van den Oord et al., 2017).

    z [n, latent, t] -> quantised z, and the loss that draws inputs and codewords together and has
    each book explain what it can of what the ones before left over. Until `discrete`, the same
    bottleneck without codewords, so that there is something to code when they come.
    """
    total, loss = torch.zeros_like(z), z.new_zeros(())
    for average in averages:
        book = average.book
        words = points = F.normalize(book.project(z), dim=1)
        with torch.no_grad():
            codes = book.nearest(points)
            average.update(points.transpose(1, 2).flatten(0, 1), codes.flatten())
        if discrete:
            words = book.codebook(codes).transpose(1, 2)
            loss = loss + F.mse_loss(points, words)
        part = book.expand(points + (words - points).detach())
        power = z.detach().square().mean() + part.detach().square().mean()
        loss = loss + F.mse_loss(part, z.detach()) / power
        total, z = total + part, z - part
    return total, loss


def _update(optimiser: torch.optim.Optimizer, loss: Tensor, model: nn.Module, clip: float) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()


def _check_shapes(config: CodecConfig, data: DataConfig, snac: SnacConfig) -> None:
    """ConfigError for a crop or a rate that this codec cannot be trained with."""
    if config.crop_samples % snac.samples_per_frame:
        raise ConfigError(
            f"codec.crop_samples is {config.crop_samples}; a whole number of frames is needed, "
            f"each of {snac.samples_per_frame} samples by codec.model"
        )
    if data.sample_rate != snac.sampling_rate:
        raise ConfigError(
            f"codec.model.sampling_rate is {snac.sampling_rate} and data.sample_rate "
            f"{data.sample_rate}; they must be the same"
        )


def _load_samples(config: CodecConfig, data: DataConfig) -> tuple[Tensor, Tensor]:
    shards = read_shards(data.folder, config.hours, data.sample_rate)
    held_out, *rest = (torch.from_numpy(np.array(shard.samples)) for shard in shards)
    train = torch.cat(rest)
    if (shortest := min(len(train), len(held_out))) <= config.crop_samples:
        raise ConfigError(
            f"codec.crop_samples is {config.crop_samples}, and a part of {data.folder} has "
            f"{shortest} samples only; give a smaller crop, or more utterances_per_shard"
        )
    return train, held_out
