"""Triton kernels of the codec against their plain twins in float64, and streams through them.

Without a GPU they run where TRITON_INTERPRET=1 is set."""

import os
from copy import deepcopy

import numpy as np
import pytest
import torch

from quaver.codecs.snac import DecoderBlock, NoiseBlock, ResidualUnit, Snac, SnacConfig
from quaver.core.protocols import Part
from quaver.core.random import normal, seed_key, stream_key
from quaver.nn.conv import Chunk, Conv1d, ConvTranspose1d, Memory, Snake

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("kernels need a GPU, or triton and TRITON_INTERPRET=1", allow_module_level=True)
layers = pytest.importorskip("quaver.nn.kernels.layers", reason="triton is not installed")
from quaver.codecs import fused  # noqa: E402 - needs triton

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
ENDLESS = 1 << 40
CLOSE = 1e-6  # of the largest number of a result; fp32 rounds at 6e-8


def spread(module, seed=0):
    """Weights and alphas such that outputs are about as large as inputs."""
    random = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        values = torch.randn(weight.shape, generator=random) * weight[0].numel() ** -0.5
        if name.endswith("alpha"):
            values = 0.3 + 2 * torch.rand(weight.shape, generator=random)
        weight.data = values
    return module.requires_grad_(False)


def chunks(streams, rate, device, lag=3):
    """The same stretch of streams at their start, in the middle, and at their end, twice: for the
    plain twin on a CPU and for a kernel. All remember something."""
    start = torch.tensor([0, 5, 2])[torch.arange(streams) % 3]
    end = torch.tensor([ENDLESS, ENDLESS, 3])[torch.arange(streams) % 3]
    rows = torch.arange(streams).flip(0) + 1
    return [
        Chunk(Memory(streams + 2), rows.to(at), start.to(at), end.to(at), True, True, rate, lag)
        for at in (torch.device("cpu"), device)
    ]


def remember(layer, plain, ours, x, count):
    kept = torch.randn(len(x) + 2, x.shape[1], count, dtype=torch.float64)
    plain.memory.of(layer, x.double(), count).copy_(kept)
    ours.memory.of(layer, x.to(DEVICE), count).copy_(kept)


def inputs(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def window_of(x, room):
    window = layers.Window.empty(*x.shape, room, x.to(DEVICE))
    window.x.copy_(x)
    return window


def assert_close(found, wanted):
    assert found.shape == wanted.shape
    assert torch.isfinite(found).all()
    error = (found.double().cpu() - wanted).abs().max() / wanted.abs().max()
    assert error < CLOSE


@pytest.mark.parametrize("dilation", [1, 3, 9])
@pytest.mark.parametrize(("channels", "steps"), [(24, 20), (64, 132), (160, 36)])
def test_a_residual_unit_is_its_twin(dilation, channels, steps):
    unit = spread(ResidualUnit(channels, dilation))
    x = inputs(3, channels, steps)
    plain, ours = chunks(3, steps // 2, DEVICE)
    remember(unit, plain, ours, x, 6 * dilation)
    layer = fused._unit(deepcopy(unit).to(DEVICE), None)
    wanted = deepcopy(unit).double()
    kept = plain.memory.of(unit, x.double(), 6 * dilation)
    plain.memory.of(wanted, x.double(), 6 * dilation).copy_(kept)
    wanted = (wanted(x.double(), plain), plain.memory.of(wanted, x.double(), 6 * dilation))
    window = window_of(x, 6 * dilation)
    layers.recall(window, ours.memory.of(unit, x, 6 * dilation), ours)
    ours.lag += layer.padding
    found = layers.mix(layer, window, ours, 5)
    assert plain.lag == ours.lag
    assert_close(found.x, wanted[0])
    assert_close(ours.memory.of(unit, x, 6 * dilation), wanted[1])
