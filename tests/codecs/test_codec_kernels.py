"""Triton kernels of the codec against their plain twins in float64, and streams through them.

Without a GPU they run where TRITON_INTERPRET=1 is set.
"""

from copy import deepcopy

import numpy as np
import pytest
import torch

from needs import INTERPRETED, NO_GPU, NO_TRITON, ONLY_GPU
from quaver.codecs.snac import NoiseBlock, ResidualUnit, Snac, SnacConfig
from quaver.core.protocols import Part
from quaver.nn.conv import Chunk, Conv1d, ConvTranspose1d, Memory, Snake, convolutions

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip(NO_GPU, allow_module_level=True)
layers = pytest.importorskip("quaver.nn.kernels.layers", reason=NO_TRITON)
from quaver.codecs import fused  # noqa: E402 - needs triton
from quaver.nn.kernels.halves import halves  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
ENDLESS = 1 << 40
CLOSE = 1e-6  # of the largest number of a result; fp32 rounds at 6e-8
BOOK = 16
CONFIG = SnacConfig(
    sampling_rate=24000,
    encoder_dim=2,
    encoder_rates=(2, 4),
    decoder_dim=24,
    decoder_rates=(4, 2),
    codebook_size=BOOK,
    codebook_dim=4,
    vq_strides=(4, 2, 1),
)


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread(module):
    """Weights with which outputs are about as large as inputs, and waves long and short."""
    for number, (name, weight) in enumerate(module.named_parameters()):
        values = randn(*weight.shape, seed=number)
        if name.endswith("alpha"):
            weight.data = 0.5 + values.abs()
        else:
            weight.data = 0.6 * values / (weight[0].numel() if weight.ndim > 1 else 40) ** 0.5
    return module.requires_grad_(False).to(DEVICE)


def pair_of_chunks(streams, rate, lag):
    """The same stretch of streams that begin, go on and end, for a twin in float64 and a kernel."""
    place = torch.arange(streams, device=DEVICE) % 3
    start = torch.tensor([0, 5, 2], device=DEVICE)[place]
    end = torch.tensor([ENDLESS, ENDLESS, 3], device=DEVICE)[place]
    rows = torch.arange(streams, device=DEVICE).flip(0) + 1
    return [
        Chunk(Memory(streams + 2), rows, start, end, True, True, rate, lag)
        for _ in ("plain", "own")
    ]


class Twins:
    """A layer that remembers `count` inputs, in float64 and as a kernel sees it."""

    def __init__(self, layer, count, x, rate, lag=3, snake=None):
        self.layer, self.plain, self.x = layer, deepcopy(layer).double(), x.to(DEVICE)
        self.before, self.chunk = pair_of_chunks(len(x), rate, lag)
        self.kept = self.chunk.memory.of(layer, self.x, count)
        self.plain_kept = self.before.memory.of(self.plain, self.x.double(), count)
        self.kept.copy_(randn(*self.kept.shape, seed=9))
        self.plain_kept.copy_(self.kept)
        self.window = layers.Window.empty(*x.shape, count, self.x, snake is not None)
        self.window.x.copy_(self.x)
        if snake is not None:  # what the layer before would write
            self.window.snaked.copy_(snake(self.window.whole))
            self.window.snaked[..., : self.window.lead] = torch.nan
        rows = None if snake is None else layers.snake_rows(snake.alpha)
        layers.recall(self.window, self.kept, self.chunk, rows)

    def check(self, found, wanted):
        assert self.chunk.lag == self.before.lag
        assert_close(found, wanted)
        assert torch.equal(self.kept, self.plain_kept.float())  # the rows of no stream as well


def assert_close(found, wanted, close=CLOSE):
    assert found.shape == wanted.shape
    assert torch.isfinite(found).all()
    assert (found.double() - wanted).abs().max() < close * wanted.abs().max()


@pytest.mark.parametrize("dilation", [1, 3, 9])
@pytest.mark.parametrize(("channels", "steps"), [(24, 20), (64, 132), (160, 36)])
@pytest.mark.parametrize("snaked", [False, True])
def test_a_residual_unit_is_its_twin(dilation, channels, steps, snaked):
    unit, after = spread(ResidualUnit(channels, dilation)), spread(Snake(channels))
    x = randn(3, channels, steps)
    twins = Twins(unit, 6 * dilation, x, rate=steps // 2, snake=unit.block[0])
    wanted = twins.plain(twins.x.double(), twins.before)
    wanted = after.double()(wanted) if snaked else wanted
    layer = fused._unit(unit, layers.snake_rows(after.alpha) if snaked else None)
    twins.chunk.lag += layer.padding
    following = None if snaked else reader(channels)[1]
    found = layers.mix(layer, twins.window, twins.chunk, 5, reader=following)
    assert (found.x == 0).any()
    twins.check(found.x, wanted)
    if not snaked:
        assert_read(found, wanted)


def assert_read(found, wanted):
    """What comes out stands there as it is, and through the snake of the unit that reads it."""
    snake, _ = reader(wanted.shape[1])
    beside = layers.Window(found.snaked, found.lead, found.steps)
    assert_close(beside.x, snake.double()(wanted))


def reader(channels):
    """The first snake of a unit, and the unit."""
    unit = spread(ResidualUnit(channels, 1))
    return unit.block[0], fused._unit(unit, None)


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize(("inputs", "outputs", "steps"), [(24, 12, 8), (40, 33, 68)])
def test_upsampling_is_its_twin(stride, inputs, outputs, steps):
    up = spread(ConvTranspose1d(inputs, outputs, stride))
    twins = Twins(up, 1, randn(7, inputs, steps), rate=steps // 2)
    wanted = twins.plain(twins.x.double(), twins.before)
    twins.chunk.rate, twins.chunk.lag = twins.before.rate, twins.before.lag
    layer, following = layers.Upsample.of(up.weight, up.bias), reader(outputs)[1]
    found = layers.upsample(layer, twins.window, twins.chunk, 1, following)
    twins.check(found.x, wanted)
    assert_read(found, wanted)


@pytest.mark.parametrize(("channels", "steps"), [(24, 300), (80, 8)])
def test_noise_is_its_twins(channels, steps):
    block = spread(NoiseBlock(channels, 3))
    seeds = torch.tensor([0, 2**63 - 1, -5, 2**40 + 1], device=DEVICE)
    before, chunk = pair_of_chunks(4, rate=steps // 2, lag=3)
    x = before.clean(randn(4, channels, steps).to(DEVICE))
    window = layers.Window.empty(*x.shape, 6, x)
    window.x.copy_(x)
    wanted = deepcopy(block).double()(x.double(), before, seeds)
    number, layer = fused._noise(block)
    noise = layers.draw(window, chunk, seeds, number)
    assert noise.std() > 0.8
    # the twin's noise is in fp32 as well
    found = layers.mix(layer, window, chunk, 6, noise, reader(channels)[1])
    assert_close(found.x, wanted, 2 * CLOSE)


@pytest.mark.parametrize("steps", [4, 12, 76])
def test_the_first_layers_are_their_twins(steps):
    wide = spread(Conv1d(48, 48, 7, groups=48))
    narrow, after = spread(Conv1d(48, 20, 1)), spread(Snake(20))
    twins = Twins(wide, 6, randn(9, 48, steps), rate=steps // 2)
    layer = fused._first(wide, narrow, layers.snake_rows(after.alpha))
    wanted = twins.plain(twins.x.double(), twins.before)
    wanted = twins.before.clean(deepcopy(narrow).double()(wanted))
    twins.chunk.lag += layer.padding
    found = layers.mix(layer, twins.window, twins.chunk, 1)
    twins.check(found.x, after.double()(wanted))


@pytest.mark.parametrize(("channels", "steps"), [(64, 132), (5, 16)])
def test_the_last_layer_is_its_twin(channels, steps):
    layer = spread(Conv1d(channels, 1, 7))
    twins = Twins(layer, 6, randn(3, channels, steps), rate=steps // 2)
    found = layers.last(layer.weight, layer.bias, twins.window)
    wanted = twins.plain(twins.x.double(), twins.before)
    twins.chunk.lag += layer.padding
    twins.check(found, wanted)


def test_nothing_is_kept_of_a_look_ahead():
    twins = Twins(spread(Conv1d(20, 1, 7)), 6, randn(3, 20, 4), rate=2)
    kept = twins.kept.clone()
    twins.chunk.keep = False
    twins.window.x.zero_()
    layers.recall(twins.window, twins.kept, twins.chunk)
    assert torch.equal(twins.kept, kept)
    remembered = kept[twins.chunk.rows] * (twins.chunk.start > 0)[:, None, None]
    lead = twins.window.lead
    assert torch.equal(twins.window.whole[..., lead - 6 : lead], remembered)


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e3])
def test_products_are_as_exact_as_fp32s(size):
    """Against the error of fp32's own products of the same numbers."""
    weight, x = randn(128, 128) / 8, size * randn(1, 128, 64, seed=2)
    chunk = pair_of_chunks(1, rate=64, lag=0)[1]
    chunk.start += 1
    window = layers.Window.empty(*x.shape, 6, x.to(DEVICE))
    window.x.copy_(x)
    layer = layers.Mix(layers.NOISE, halves(weight.to(DEVICE)))
    found = layers.mix(layer, window, chunk, 6, torch.ones(1, 64, device=DEVICE)).x.cpu()
    wanted = x.double() + weight.double() @ x.double()
    plain = (x + weight @ x).double()
    assert (found.double() - wanted).norm() < 3 * (plain - wanted).norm()


def test_products_in_tf32_are_those_of_eleven_bits():
    weight, x = randn(128, 128) / 8, randn(1, 128, 64, seed=2)
    chunk = pair_of_chunks(1, rate=64, lag=0)[1]
    chunk.start += 1
    window = layers.Window.empty(*x.shape, 6, x.to(DEVICE))
    window.x.copy_(x)
    layer = layers.Mix(layers.NOISE, halves(weight.to(DEVICE), exact=False))
    found = layers.mix(layer, window, chunk, 6, torch.ones(1, 64, device=DEVICE)).x.cpu()
    wanted = x.double() + weight.half().double() @ x.half().double()
    assert_close(found, wanted)


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2])
def test_waves_are_as_exact_as_fp32s(size):
    unit = spread(ResidualUnit(32, 1))
    for block in unit.block[1::2]:  # snakes alone, one after another
        block.weight.zero_()
        block.bias.zero_()
    unit.block[1].weight[:, 0, 3] = 1
    unit.block[3].weight[range(32), range(32), 0] = 1
    twins = Twins(unit, 6, size * randn(1, 32, 256), rate=256, snake=unit.block[0])
    twins.before.start += 1
    twins.chunk.start += 1
    twins.chunk.lag += 3
    found = layers.mix(fused._unit(unit, None), twins.window, twins.chunk, 6).x
    wanted = twins.plain(twins.x.double(), twins.before)
    plain = unit(twins.x)[..., :-3].double()
    assert (found - wanted)[..., 6:].abs().max() < 3 * (plain - wanted[..., 3:]).abs().max()


@pytest.fixture(scope="module")
def codecs():
    """A codec in plain PyTorch, and with kernels."""
    plain = spread(Snac(CONFIG)).eval()
    own = deepcopy(plain)
    own.fuse()
    return plain, own


def one_shot(codec, frames, seed):
    chosen = None if seed is None else torch.tensor([seed], device=DEVICE)
    with torch.inference_mode(), convolutions():
        return codec.decode_batch(frames[None].to(DEVICE), chosen)[0].cpu().numpy()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("trial", [1] if INTERPRETED else range(12))
def test_streams_through_kernels_are_one_decode_each(codecs, trial, graphs):
    """However they are cut, whatever is in a batch, with noise and without."""
    plain, own = codecs
    random = np.random.default_rng(trial)
    pool = own.streams(slots=1, graphs=graphs)
    if trial % 2:
        pool.prepare(3)
    seeds = [None, 5, 2**63 - 1, 0][: random.integers(2, 5)]
    frames = [torch.from_numpy(random.integers(0, BOOK, (random.integers(1, 9), 7))) for _ in seeds]
    streams, outs = [pool.open(seed) for seed in seeds], [[] for _ in seeds]
    left = [[*whole.split(int(random.integers(1, 5)))] for whole in frames]
    open_ = set(range(len(seeds)))
    while open_:
        chosen = [i for i in sorted(open_) if random.random() < 0.7]
        parts = [Part(streams[i], left[i].pop(0), last=not left[i]) for i in chosen]
        for i, part, samples in zip(chosen, parts, pool.decode(parts), strict=True):
            if not part.last and not outs[i]:  # looking ahead changes nothing
                streams[i].peek()
            outs[i].append(samples)
        open_ -= {i for i, part in zip(chosen, parts, strict=True) if part.last}
    for whole, seed, out in zip(frames, seeds, outs, strict=True):
        wanted = one_shot(plain, whole, seed)
        assert 0.05 < np.abs(wanted).max() < 0.999
        assert np.abs(np.concatenate(out) - wanted).max() < 1e-5


@pytest.mark.skipif(INTERPRETED, reason=ONLY_GPU)
def test_no_batch_overtakes_what_it_needs(codecs):
    """Weights, and the memory of more streams, come from a queue that is a second behind."""
    plain, built = codecs
    frames = torch.from_numpy(np.random.default_rng(9).integers(0, BOOK, (8, 7)))
    for part in (frames[:4], frames[4:]):  # kernels are built now, not in the second
        built.streams(slots=1).open(7).push(part)
    torch.cuda._sleep(2 * 10**9)
    own = deepcopy(plain)
    own.fuse()
    pool = own.streams(slots=1, graphs=True)
    streams = [pool.open(7)]
    outs = [[streams[0].push(frames[:4])]]
    torch.cuda._sleep(2 * 10**9)
    streams.append(pool.open(8))
    outs.append([streams[1].push(frames[:4])])
    for stream, out, seed in zip(streams, outs, (7, 8), strict=True):
        out += [stream.push(frames[4:]), stream.finish()]
        assert np.abs(np.concatenate(out) - one_shot(plain, frames, seed)).max() < 1e-5


def test_tf32_is_heard_by_nobody(codecs):
    """Fifty decibels below what is heard, and not the same."""
    plain, _ = codecs
    own = deepcopy(plain)
    own.tf32 = True
    own.fuse()
    frames = torch.from_numpy(np.random.default_rng(3).integers(0, BOOK, (6, 7)))
    pool = own.streams(slots=1, graphs=False)
    found = pool.decode([Part(pool.open(5), frames, last=True)])[0]
    wanted = one_shot(plain, frames, 5)
    error = 20 * np.log10(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert -100 < error < -50


def test_a_stride_without_a_kernel_stays_plain():
    codec = Snac(SnacConfig(24000, 2, (2, 6), 24, (6, 2), BOOK, 4, (4, 2, 1)))
    codec.fuse()
    assert codec._fused is None
