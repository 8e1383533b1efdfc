"""Spectral and adversarial losses of codec training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mel_filters(sample_rate: int, n_fft: int, bands: int) -> Tensor:
    """Triangular filters [bands, n_fft / 2 + 1], evenly spaced on the mel scale of O'Shaughnessy
    (1987), 2595 log10(1 + f / 700).

    The first and last stay flat to the ends of the spectrum. Triangles that vanish there cannot
    see an offset or a tone at half the sample rate, and a codec trained on them grows both.
    """
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate / 2 / 700.0))
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, float(top), bands + 2) / 2595.0) - 1.0)
    hertz = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    rise = (hertz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz[None]) / (edges[2:] - edges[1:-1])[:, None]
    rise[0], fall[-1] = rise[0].clamp(min=1.0), fall[-1].clamp(min=1.0)
    return torch.minimum(rise, fall).clamp(min=0.0, max=1.0)


class MelLoss(nn.Module):
    """Mean absolute difference of log10 mel magnitudes over several window lengths."""

    def __init__(self, sample_rate: int, scales: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._windows = [n_fft for n_fft, _ in scales]
        for n_fft, bands in scales:
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft))
            self.register_buffer(f"filters{n_fft}", mel_filters(sample_rate, n_fft, bands))

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Samples [n, t] -> scalar."""
        total = made.new_zeros(())
        for n_fft in self._windows:
            total = total + F.l1_loss(self._mel(made, n_fft), self._mel(wanted, n_fft))
        return total / len(self._windows)

    def _mel(self, x: Tensor, n_fft: int) -> Tensor:
        window = self.get_buffer(f"window{n_fft}")
        spectrum = torch.stft(x, n_fft, n_fft // 4, window=window, return_complex=True)
        mel = self.get_buffer(f"filters{n_fft}") @ spectrum.abs()
        return mel.clamp(min=1e-5).log10()


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Least-squares loss (Mao et al., 2017) of feature lists whose last entry is the verdict."""
    losses = [
        (1 - r[-1].float()).square().mean() + f[-1].float().square().mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """The generator's least-squares loss, and the distance of hidden features (Larsen, 2016)."""
    verdict = torch.stack([(1 - f[-1].float()).square().mean() for f in fake]).mean()
    features = torch.stack(
        [
            F.l1_loss(b.float(), a.detach().float())
            for r, f in zip(real, fake, strict=True)
            for a, b in zip(r[:-1], f[:-1], strict=True)
        ]
    ).mean()
    return verdict, features
