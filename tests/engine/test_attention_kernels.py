"""Decode attention's kernels against their twins and float64.

Without a GPU they run where TRITON_INTERPRET=1 is set.
"""

import os

import pytest
import torch
from torch import Tensor

from quaver.core.protocols import CacheSpec
from quaver.engine.cache import KVCache, has_kernels
from quaver.engine.keeping import KEYS, VALUES, keeping
from quaver.precision import Format

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("kernels need a GPU, or triton and TRITON_INTERPRET=1", allow_module_level=True)
kernels = pytest.importorskip("quaver.engine.kernels.attention", reason="triton is not installed")
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
FORMATS = [Format.BF16, Format.FP16, Format.FP8, Format.FP8_E5M2, Format.INT8]
LENGTHS = [0, 1, 63, 64, 130] if INTERPRETED else [0, 1, 63, 64, 130, 1000, 4000]
LAYER = 1


def filled(chosen: Format, heads: int, d: int) -> KVCache:
    """A cache whose streams have LENGTHS positions, with rubbish after them."""
    scales = torch.tensor([[1.0, 1.0], [0.011, 0.013]])
    kept = keeping(chosen, 2, scales)
    slots, length = len(LENGTHS), max(LENGTHS) + 2
    cache = KVCache(CacheSpec(2, heads, d), slots, length, kept, DEVICE)
    generator = torch.Generator().manual_seed(0)
    for part in (KEYS, VALUES):
        x = torch.randn(slots, heads, length, d, generator=generator)
        for slot, count in enumerate(LENGTHS):
            x[slot, :, count:] = 300.0
        elements, steps = kept.encode(x.bfloat16().to(DEVICE), LAYER, part)
        cache.store[LAYER, part] = elements
        if cache.steps is not None:
            cache.steps[LAYER, part] = steps
    cache.lengths.copy_(torch.tensor(LENGTHS))
    return cache


def decoded(cache: KVCache, part: int) -> Tensor:
    """What a layer has, [slots, heads, length, d] in float64, without the rounding of decoding."""
    elements = cache.store[LAYER, part].view(cache.keeping.kind).double()
    if cache.steps is not None:
        return elements * cache.steps[LAYER, part].double()[..., None]
    return elements * cache.keeping.scales(LAYER)[part]


def new(heads: int, d: int, seed: int) -> Tensor:
    """[slots, heads, 1, d] that is a part of something larger, as attention's is."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(len(LENGTHS), 1, heads + 3, d, generator=generator).bfloat16().to(DEVICE)
    return wide.transpose(1, 2)[:, 2 : heads + 2]


@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize(("heads", "group", "d"), [(2, 3, 64), (1, 1, 16), (8, 3, 128)])
def test_attention_is_that_of_what_is_kept(chosen, heads, group, d):
    cache = filled(chosen, heads, d)
    q, k, v = new(heads * group, d, 1), new(heads, d, 2), new(heads, d, 3)
    kernels.append(k, v, cache.layer(LAYER))
    found = kernels.attend(q, cache.layer(LAYER), max(LENGTHS) + 1)
    keys, values = decoded(cache, KEYS), decoded(cache, VALUES)
    for slot, count in enumerate(LENGTHS):
        wide = [x[slot, :, : count + 1].repeat_interleave(group, 0) for x in (keys, values)]
        scores = (q[slot].double() @ wide[0].transpose(-1, -2)) / d**0.5
        wanted = scores.softmax(-1) @ wide[1]
        # bf16 of weights and of the result
        torch.testing.assert_close(found[slot].double(), wanted, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize("magnitude", [0.0, 1e-3, 1.0, 1e4])
def test_what_is_new_is_kept_as_the_twin_keeps_it(chosen, magnitude):
    if INTERPRETED and magnitude and chosen.quantised:
        pytest.skip("Triton's interpreter cuts off bits where a GPU rounds to bf16 and fp8")
    cache, (heads, d) = filled(chosen, 2, 32), (2, 32)
    before = cache.store.clone()
    k, v = magnitude * new(heads, d, 2), magnitude * new(heads, d, 3)
    kernels.append(k, v, cache.layer(LAYER))
    for part, x in ((KEYS, k), (VALUES, v)):
        elements, steps = cache.keeping.encode(x[:, :, 0], LAYER, part)
        for slot, count in enumerate(LENGTHS):
            assert torch.equal(cache.store[LAYER, part, slot, :, count], elements[slot])
            before[LAYER, part, slot, :, count] = elements[slot]
            if cache.steps is not None and steps is not None:
                assert torch.equal(cache.steps[LAYER, part, slot, :, count], steps[slot])
    assert torch.equal(cache.store, before), "nothing else has changed"


def test_a_kernel_is_only_used_where_it_runs():
    cpu = torch.device("cpu")
    assert not has_kernels(torch.bfloat16, 64, cpu)
    if not INTERPRETED:
        assert has_kernels(torch.bfloat16, 64, DEVICE)
        assert not has_kernels(torch.float32, 64, DEVICE)
        assert not has_kernels(torch.bfloat16, 8, DEVICE)
        assert not has_kernels(torch.bfloat16, 96, DEVICE)
