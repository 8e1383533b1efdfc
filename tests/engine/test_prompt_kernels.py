"""Attention of whole prompts: kernels against their twin in PyTorch.

Without a GPU they run where TRITON_INTERPRET=1 is set.
"""

from unittest.mock import patch

import pytest
import torch

from needs import COARSE, INTERPRETED, NO_GPU, NO_TRITON
from quaver.core.protocols import CacheSpec
from quaver.engine.cache import KVCache, PackView
from quaver.engine.keeping import VALUES, keeping
from quaver.nn.rope import RotaryEmbedding
from quaver.precision import Format

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip(NO_GPU, allow_module_level=True)
pytest.importorskip("quaver.engine.kernels.prompts", reason=NO_TRITON)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
FORMATS = [Format.BF16, Format.FP16, Format.FP8, Format.FP8_E5M2, Format.INT8]
MANY = 2 if INTERPRETED else 8  # heads
SLOTS, LENGTH, LAYER = 5, 96, 1
PROMPTS = {3: 5, 0: 70, 4: 1}  # how long each is, by its slot, as they are packed


def cache_of(chosen, heads, d, kernels):
    scales = torch.tensor([[1.0, 1.0], [0.011, 0.013]])
    with patch("quaver.engine.cache.has_kernels", lambda *_: True):  # the interpreter's too
        made = KVCache(CacheSpec(2, heads, d), SLOTS, LENGTH, keeping(chosen, 2, scales), DEVICE)
    made.has_kernels = kernels
    return made


def packed():
    """Slots and positions, and two inputs of padding."""
    slots = [slot for slot, count in PROMPTS.items() for _ in range(count)]
    positions = [position for count in PROMPTS.values() for position in range(count)]
    more = [positions[-1] + 1, positions[-1] + 2]
    return torch.tensor([slots + slots[-1:] * 2, positions + more]).to(DEVICE)


@pytest.mark.parametrize("chosen", FORMATS, ids=str)
@pytest.mark.parametrize(("heads", "group", "d"), [(2, 3, 64), (1, 1, 32), (MANY, 3, 128)])
def test_prompts_are_read_as_the_twin_reads_them(chosen, heads, group, d):
    if INTERPRETED and str(chosen).startswith("fp8"):
        pytest.skip(COARSE)
    slots, positions = packed()
    kind = torch.float16 if chosen is Format.FP16 else torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(1, len(slots), heads * (group + 2), d, generator=generator)
    qkv = qkv.to(DEVICE, kind).transpose(1, 2)
    rope = RotaryEmbedding(d, 10_000.0, None, LENGTH).to(DEVICE)
    caches = [cache_of(chosen, heads, d, kernels) for kernels in (False, True)]
    found = []
    for cache in caches:
        view = PackView(cache, slots, positions)
        found.append(view.attend(LAYER, qkv, heads, view.turning(rope)))
    assert found[1].shape == found[0].shape and found[1].dtype == found[0].dtype
    close = 0.03 if INTERPRETED else 0.02  # bf16 of weights; the interpreter cuts bits off
    torch.testing.assert_close(found[1].float(), found[0].float(), rtol=close, atol=close)
    for part, (twin, own) in enumerate(zip(*(cache.store for cache in caches), strict=True)):
        one, other = (x[LAYER].view(caches[0].keeping.kind).float() for x in (twin, own))
        if part == VALUES and not INTERPRETED:
            assert torch.equal(one, other)
        else:  # a product and a sum may be one instruction: the last bit of the format
            coarse = {"rtol": 0.26, "atol": 1.0}
            fine = {"rtol": 0.02, "atol": 0.02}
            torch.testing.assert_close(other, one, **coarse if chosen.quantised else fine)
        assert torch.equal((one != 0).any(-1), (other != 0).any(-1)), "kept where it belongs"
        assert not own[0].any(), "no other layer has changed"
