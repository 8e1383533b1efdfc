"""Keys and values in fewer bits: what comes back, and a model that reads them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quaver
from quaver.core.errors import InputError
from quaver.core.protocols import CacheSpec
from quaver.engine.cache import DecodeView, KVCache, PrefillView
from quaver.engine.keeping import KEYS, VALUES, keeping
from quaver.precision import Format, Role, find_recipe

KEPT = [chosen for chosen in sorted(Role.KV.allowed) if chosen.quantised]
# of the largest of a head and position, and of the number itself
STEP = {Format.INT8: (0.51 / 127, 2.0**-8), Format.FP8: (2.0**-9, 2.0**-4)}
STEP[Format.FP8_E5M2] = (2.0**-12, 2.0**-3)


@pytest.mark.parametrize("chosen", KEPT)
@given(
    seed=st.integers(0, 2**31),
    magnitude=st.sampled_from([1e-4, 0.1, 1.0, 20.0]),
    part=st.sampled_from([KEYS, VALUES]),
)
def test_what_is_kept_comes_back(chosen, seed, magnitude, part):
    x = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(seed)) * magnitude
    scales = torch.tensor([[1.0, 1.0], [magnitude * 5 / 448, magnitude * 6 / 448]])
    kept = keeping(chosen, 2, scales)
    elements, steps = kept.encode(x, 1, part)
    assert elements.dtype == kept.storage and elements.itemsize == 1
    assert (steps is not None) == kept.has_steps
    back = kept.decode(elements, steps, 1, part).float()
    share, own = STEP[chosen]
    largest = x.abs().amax(-1, keepdim=True)
    slack = share * largest + (own + 2.0**-8) * x.abs() + 1e-7 * (chosen is Format.INT8)
    if chosen is Format.FP8_E5M2:
        slack = slack + 2.0**-17  # it has no scale: its smallest step
    assert ((back - x).abs() <= slack).all()


def test_fp8_cuts_what_calibration_did_not_see():
    kept = keeping(Format.FP8, 1, torch.tensor([[0.01, 0.02]]))
    x = torch.tensor([4.48, 100.0, -1e30])
    for part, largest in ((KEYS, 4.48), (VALUES, 8.96)):
        back = kept.decode(*kept.encode(x, 0, part), 0, part)
        torch.testing.assert_close(
            back.float()[1:], torch.tensor([largest, -largest]), rtol=0.01, atol=0
        )


def test_a_format_that_keeps_nothing_is_refused():
    with pytest.raises(InputError, match="cannot be kept as nf4"):
        keeping(Format.NF4, 1)


@pytest.mark.parametrize("chosen", [Format.FP32, *KEPT])
def test_views_write_and_read_the_same_places(chosen, device):
    """A prompt in two stretches, then three steps beside another slot: all of it is there."""
    torch.manual_seed(0)
    spec = CacheSpec(layers=2, kv_heads=2, head_dim=8)
    kept = keeping(chosen, 2, torch.full((2, 2), 0.01))
    cache = KVCache(spec, 2, 16, kept, device)
    written = torch.randn(2, 2, 2, 10, 8, device=device)  # layer, part, head, position, d
    for slot in (0, 1):
        cache.open(slot)
        for start, count in ((0, 4), (4, 3)):
            view = PrefillView(cache, slot, start, count)
            for layer in (0, 1):
                k, v = written[layer, :, None, :, start : start + count]
                read = view.update(layer, k, v)
                assert read[0].shape == (1, 2, start + count, 8)
            view.advance()
    view = DecodeView(cache, 2, 16)
    for position in (7, 8, 9):
        for layer in (0, 1):
            k, v = (x[None, :, None].expand(2, -1, -1, -1) for x in written[layer, :, :, position])
            keys, values, mask = view.update(layer, k, v)
            found = torch.stack((keys, values))[:, :, :, : position + 1].float()
            wanted = written[layer, :, None, :, : position + 1].expand_as(found)
            tolerance = {Format.FP32: 0.0, Format.FP8_E5M2: 0.13}.get(chosen, 0.07)
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance / 4)
            assert mask[:, 0, 0].sum(-1).tolist() == [position + 1] * 2
        view.advance()


def test_it_is_half_as_large():
    spec = CacheSpec(layers=4, kv_heads=2, head_dim=64)
    sizes = {
        chosen: KVCache(spec, 2, 100, keeping(chosen, 4), torch.device("cpu")).bytes
        for chosen in (Format.BF16, *KEPT)
    }
    assert sizes[Format.FP8] * 2 == sizes[Format.FP8_E5M2] * 2 == sizes[Format.BF16]
    assert sizes[Format.INT8] / sizes[Format.BF16] == pytest.approx(0.5 + 1 / 64)


@pytest.mark.parametrize("chosen", KEPT)
def test_a_model_speaks_with_it(chosen, tiny_checkpoint, device):
    recipe = f"bf16,kv={chosen}"
    voice = quaver.load(tiny_checkpoint, recipe, str(device))
    audio = voice.generate("Hello there.", seed=1)
    assert len(audio.samples) and voice.info()["recipe"] == recipe
    again = quaver.load(tiny_checkpoint, recipe, str(device)).generate("Hello there.", seed=1)
    assert (audio.samples == again.samples).all()
    assert find_recipe("fp8").format(Role.KV) is Format.FP8
