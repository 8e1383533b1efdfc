"""Critics of codec training: by period (Kong et al., 2020) and by spectrogram (Jang et al., 2021).

They exist only while a codec is trained; nothing of them is saved with the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (2048, 1024, 512)


def _features(layers: Iterable[nn.Module], verdict: nn.Module, x: Tensor) -> list[Tensor]:
    found = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.1)
        found.append(x)
    return [*found, verdict(x)]


class PeriodCritic(nn.Module):
    """Looks at every `period`-th sample: a two-dimensional view that shows pitch."""

    def __init__(self, period: int, widths: Sequence[int] = (16, 64, 256, 512)) -> None:
        super().__init__()
        self.period = period
        inputs = (1, *widths[:-1])
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(i, o, (5, 1), (3, 1), padding=(2, 0)))
            for i, o in zip(inputs, widths, strict=True)
        )
        self.verdict = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Samples [n, t] -> features, the verdict last."""
        x = F.pad(x, (0, -x.shape[-1] % self.period), mode="reflect")
        return _features(self.layers, self.verdict, x.unflatten(-1, (-1, self.period))[:, None])


class SpectrogramCritic(nn.Module):
    """Looks at the complex spectrogram of one window length."""

    def __init__(self, n_fft: int, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(n_fft))
        self.n_fft = n_fft
        strides = ((1, 1), (1, 2), (1, 2), (1, 2), (1, 1))
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    2 if i == 0 else width,
                    width,
                    (3, 9 if i < 4 else 3),
                    stride,
                    padding=(1, 4 if i < 4 else 1),
                )
            )
            for i, stride in enumerate(strides)
        )
        self.verdict = weight_norm(nn.Conv2d(width, 1, (3, 3), padding=(1, 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Samples [n, t] -> features, the verdict last."""
        spectrum = torch.stft(
            x.float(),
            self.n_fft,
            self.n_fft // 4,
            window=self.get_buffer("window"),
            return_complex=True,
            normalized=True,
        )
        image = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
        return _features(self.layers, self.verdict, image)


class Critics(nn.Module):
    """All of them."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            [*(PeriodCritic(p) for p in PERIODS), *(SpectrogramCritic(n) for n in WINDOWS)]
        )

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Samples [n, t] -> a feature list a critic."""
        return [critic(x) for critic in self.critics]
