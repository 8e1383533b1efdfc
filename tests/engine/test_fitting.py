"""A cache that does not fit is made smaller, in the order that costs least first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quaver
import quaver.loading
from quaver.core.errors import UnsupportedError
from quaver.core.protocols import CacheSpec
from quaver.engine.cache import KVCache
from quaver.engine.fitting import SHORTEST, cache_bytes, fit_cache
from quaver.engine.keeping import keeping
from quaver.precision import Format, Role

ORPHEUS_3B = CacheSpec(layers=28, kv_heads=8, head_dim=128)
POSITION = 114_688  # bytes of one, in bf16


@pytest.mark.parametrize("kv", sorted(Role.KV.allowed))
def test_bytes_are_those_of_the_cache(kv):
    spec = CacheSpec(layers=3, kv_heads=2, head_dim=16)
    cache = KVCache(spec, 2, 10, keeping(kv, 3), torch.device("cpu"))
    assert cache_bytes(spec, 2, 10, kv) == cache.bytes


@pytest.mark.parametrize(
    ("positions", "wanted"),
    [
        (4 * 4096, (4, 4096, "bf16")),
        (4 * 4096 - 1, (2, 4096, "bf16")),
        (4096, (1, 4096, "bf16")),
        (3000, (1, 2048, "bf16")),
        (1024, (1, 1024, "bf16")),
        (800, (1, 1024, "int8")),
    ],
)
def test_the_ladder(positions, wanted):
    plan = fit_cache(ORPHEUS_3B, 4, 4096, Format.BF16, positions * POSITION)
    assert (plan.slots, plan.max_length, plan.kv) == wanted
    assert len(plan.notes) == sum(a != b for a, b in zip(wanted, (4, 4096, "bf16"), strict=True))
    if wanted[2] == "int8":
        assert plan.notes == (
            "1 streams at once instead of 4: memory has room for no more",
            "1,024 positions a stream instead of 4,096: memory has room for no more",
            "keys and values in int8 instead of bf16: memory has room for no more",
        )


def test_nothing_fits():
    with pytest.raises(
        UnsupportedError, match=r"1,024 positions needs 0\.06 GB .* 0\.01 GB are free"
    ):
        fit_cache(ORPHEUS_3B, 4, 4096, Format.BF16, 1e7)
    with pytest.raises(UnsupportedError, match=r"0\.00 GB are free"):
        fit_cache(ORPHEUS_3B, 4, 4096, Format.FP8, -1e9)


@given(
    slots=st.integers(1, 64),
    length=st.integers(1, 10_000),
    kv=st.sampled_from(sorted(Role.KV.allowed)),
    free=st.floats(1e8, 1e11),
)
def test_a_plan_fits_and_is_never_more_than_was_asked_for(slots, length, kv, free):
    plan = fit_cache(ORPHEUS_3B, slots, length, kv, free)
    assert cache_bytes(ORPHEUS_3B, plan.slots, plan.max_length, plan.kv) <= free
    assert 1 <= plan.slots <= slots and min(length, SHORTEST) <= plan.max_length <= length
    asked = cache_bytes(ORPHEUS_3B, slots, length, kv) <= free
    assert (not plan.notes) == asked


def test_a_model_is_loaded_with_what_there_is(tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(quaver.loading, "free_memory", lambda: 0.25e9 + 300_000)
    voice = quaver.load(tiny_checkpoint, "bf16", "cpu", slots=8)
    assert voice.info()["notes"][0].startswith("1 streams at once instead of 8")
    assert voice.info()["cache_bytes"] <= 300_000
    assert len(voice.generate("Hello there.", seed=1).samples)
    monkeypatch.setattr(quaver.loading, "free_memory", lambda: 1e6)
    with pytest.raises(UnsupportedError, match=r"0\.00 GB are free"):
        quaver.load(tiny_checkpoint, "bf16", "cpu")
