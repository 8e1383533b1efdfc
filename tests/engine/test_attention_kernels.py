"""Decode attention's kernels against their twins and float64.

Without a GPU they run where TRITON_INTERPRET=1 is set.
"""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from needs import COARSE, INTERPRETED, NO_GPU, NO_TRITON
from quaver.core.protocols import CacheSpec
from quaver.engine.cache import KVCache, has_kernels
from quaver.engine.keeping import KEYS, VALUES, keeping
from quaver.nn.attention import turned
from quaver.nn.rope import RotaryEmbedding
from quaver.precision import Format

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip(NO_GPU, allow_module_level=True)
kernels = pytest.importorskip("quaver.engine.kernels.attention", reason=NO_TRITON)
launch = pytest.importorskip("quaver.nn.kernels.launch", reason=NO_TRITON)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
FORMATS = [Format.BF16, Format.FP16, Format.FP8, Format.FP8_E5M2, Format.INT8]
LENGTHS = [0, 1, 63, 64, 130] if INTERPRETED else [0, 1, 63, 64, 130, 1000, 4000]
MANY = 2 if INTERPRETED else 8  # heads
LAYER = 1


def filled(chosen: Format, heads: int, d: int) -> KVCache:
    """A cache whose streams have LENGTHS positions, with rubbish after them."""
    scales = torch.tensor([[1.0, 1.0], [0.011, 0.013]])
    kept = keeping(chosen, 2, scales)
    slots, length = len(LENGTHS), max(LENGTHS) + 2
    with patch("quaver.engine.cache.has_kernels", lambda *_: True):  # the interpreter's too
        cache = KVCache(CacheSpec(2, heads, d), slots, length, kept, DEVICE)
    generator = torch.Generator().manual_seed(0)
    for part in (KEYS, VALUES):
        x = torch.randn(slots, heads, length, d, generator=generator)
        for slot, count in enumerate(LENGTHS):
            x[slot, :, count:] = 300.0
        elements, steps = kept.encode(x.bfloat16().to(DEVICE), LAYER, part)
        cache.store[part][LAYER] = elements
        if cache.steps is not None:
            cache.steps[LAYER, part] = steps
    cache.lengths.copy_(torch.tensor(LENGTHS))
    return cache


def decoded(cache: KVCache, part: int) -> Tensor:
    """What a layer has, [slots, heads, length, d] in float64, without the rounding of decoding."""
    elements = cache.store[part][LAYER].view(cache.keeping.kind).double()
    if cache.steps is not None:
        return elements * cache.steps[LAYER, part].double()[..., None]
    return elements * cache.keeping.scales(LAYER)[part]


def new(heads: int, group: int, d: int) -> Tensor:
    """Queries, keys and values [slots, heads * (group + 2), 1, d], laid out as a product's."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(LENGTHS), 1, heads * (group + 2), d)
    return torch.randn(shape, generator=generator).bfloat16().to(DEVICE).transpose(1, 2)


def rope(d: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [slots, 1, 1, d] of each stream's position."""
    made = RotaryEmbedding(d, 10_000.0, None, max(LENGTHS) + 1)
    cos, sin = made(torch.tensor(LENGTHS)[:, None])
    return cos.to(DEVICE), sin.to(DEVICE)


def tables(d: int) -> tuple[Tensor, Tensor]:
    """Of all positions."""
    made = RotaryEmbedding(d, 10_000.0, None, max(LENGTHS) + 1)
    return made.cos.to(DEVICE), made.sin.to(DEVICE)


@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize(("heads", "group", "d"), [(2, 3, 64), (1, 1, 32), (MANY, 3, 128)])
@pytest.mark.parametrize("splits", [None, 1])
def test_attention_is_that_of_what_is_kept(chosen, heads, group, d, splits, monkeypatch):
    if INTERPRETED and str(chosen).startswith("fp8"):
        pytest.skip(COARSE)
    if splits is not None:
        monkeypatch.setattr(kernels, "splits_of", lambda *_: splits)
    cache, qkv = filled(chosen, heads, d), new(heads, group, d)
    q, _, _ = turned(qkv, heads, rope(d))
    found = kernels.attend(qkv, tables(d), cache.layer(LAYER), max(LENGTHS) + 1)
    keys, values = decoded(cache, KEYS), decoded(cache, VALUES)
    for slot, count in enumerate(LENGTHS):
        wide = [x[slot, :, : count + 1].repeat_interleave(group, 0) for x in (keys, values)]
        scores = (q[slot].double() @ wide[0].transpose(-1, -2)) / d**0.5
        wanted = scores.softmax(-1) @ wide[1]
        # bf16 of queries, of weights and of the result; the interpreter cuts bits off
        close = 0.03 if INTERPRETED else 0.01
        torch.testing.assert_close(found[slot].double(), wanted, rtol=close, atol=close)
    assert not launch.tickets(DEVICE).any(), "every count is back at zero"


@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize("magnitude", [0.0, 1e-3, 1.0, 1e4])
def test_what_is_new_is_kept_as_the_twin_keeps_it(chosen, magnitude):
    if INTERPRETED and magnitude:
        pytest.skip(COARSE)
    heads, group, d = 2, 2, 32
    cache, qkv = filled(chosen, heads, d), magnitude * new(heads, group, d)
    before = [part.clone() for part in cache.store]
    kernels.attend(qkv, tables(d), cache.layer(LAYER), max(LENGTHS) + 1)
    _, k, v = turned(qkv, heads, rope(d))
    for part, x in ((KEYS, k), (VALUES, v)):
        elements, steps = cache.keeping.encode(x[:, :, 0], LAYER, part)
        for slot, count in enumerate(LENGTHS):
            kept = cache.store[part][LAYER, slot, :, count]
            found = kept.view(cache.keeping.kind)
            wanted = elements[slot].view(cache.keeping.kind)
            if part == VALUES:
                assert torch.equal(found.float(), wanted.float())
            else:  # a product and a sum may be one instruction: the last bit of the format
                torch.testing.assert_close(found.float(), wanted.float(), rtol=0.13, atol=1.0)
            before[part][LAYER, slot, :, count] = kept
            if cache.steps is not None and steps is not None:
                own = cache.steps[LAYER, part, slot, :, count]
                torch.testing.assert_close(own, steps[slot], rtol=0.01, atol=0.0)
    for now, then in zip(cache.store, before, strict=True):
        assert torch.equal(now, then), "nothing else has changed"


@pytest.mark.parametrize("chosen", [Format.BF16, Format.FP8, Format.FP8_E5M2], ids=str)
def test_what_is_not_a_number_does_not_outlive_its_stream(chosen):
    heads, group, d = 2, 2, 32
    cache, qkv = filled(chosen, heads, d), new(heads, group, d)
    for part in cache.store:
        part.view(cache.keeping.kind).copy_(torch.full(part.shape, torch.nan))
    for slot in range(len(LENGTHS)):
        cache.open(slot)
    for part in cache.store:
        part[:, :, :, :3] = 0
    cache.lengths.fill_(3)
    found = kernels.attend(qkv, tables(d), cache.layer(LAYER), max(LENGTHS) + 1)
    assert found.isfinite().all()


@pytest.mark.parametrize("chosen", [Format.BF16, Format.FP8])
def test_a_new_key_is_turned(chosen):
    """Against numbers of float64, to the format's own step."""
    if INTERPRETED and chosen.quantised:
        pytest.skip(COARSE)
    heads, group, d = 2, 3, 64
    cache, qkv = filled(chosen, heads, d), new(heads, group, d)
    kernels.attend(qkv, tables(d), cache.layer(LAYER), max(LENGTHS) + 1)
    cos, sin = (x[:, 0].double().cpu() for x in rope(d))
    raw = qkv[:, heads * group : heads * (group + 1), 0].double().cpu()
    wanted = raw * cos + raw.roll(d // 2, dims=-1) * sin
    found = torch.stack(
        [decoded(cache, KEYS)[slot, :, count] for slot, count in enumerate(LENGTHS)]
    ).cpu()
    step = 2**-7 if chosen is Format.BF16 else 2**-3
    assert ((found - wanted).abs() <= step * wanted.abs() + 0.02).all()


def test_a_kernel_is_only_used_where_it_runs():
    cpu = torch.device("cpu")
    assert not has_kernels(torch.bfloat16, 64, cpu)
    if not INTERPRETED:
        assert has_kernels(torch.bfloat16, 64, DEVICE)
        assert not has_kernels(torch.float32, 64, DEVICE)
        assert not has_kernels(torch.bfloat16, 8, DEVICE)
        assert has_kernels(torch.bfloat16, 16, DEVICE)
        assert not has_kernels(torch.int8, 16, DEVICE)
        assert not has_kernels(torch.bfloat16, 96, DEVICE)
