"""Quantised layers against float64, against others' arithmetic, and in a model that speaks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import quaver
from quaver.core.errors import InputError
from quaver.loading import load_orpheus
from quaver.nn.linear import Linear
from quaver.precision import Format, Role, find_recipe
from quaver.precision.devices import DeviceKind, State, support
from quaver.quant.apply import LAYERS, quantise
from quaver.quant.layer import DTYPE
from quaver.quant.nf4 import GROUP, LEVELS

QUANTISED = list(LAYERS)
# Half a step of each format at a group's largest value, as a share of it, and the scale's rounding.
STEP = {
    Format.INT8: 0.5 / 127,
    Format.FP8_WEIGHT: 2.0**-4,
    Format.FP8_E5M2: 2.0**-3,
    Format.NF4: (1.0 - 0.6961928) / 2,
}


def dense(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
    linear = Linear(weight.shape[1], weight.shape[0], weight.dtype, bias is not None)
    linear.weight.data = weight
    if bias is not None:
        linear.bias.data = bias
    return linear


@pytest.mark.parametrize("chosen", QUANTISED)
@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 9),
    groups=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    magnitude=st.sampled_from([1e-20, 1e-3, 1.0, 1e4, 1e20]),
    outlier=st.sampled_from([1.0, 100.0]),
    zero_row=st.booleans(),
)
def test_a_weight_comes_back_within_half_a_step(
    chosen, rows, groups, seed, magnitude, outlier, zero_row
):
    weight = torch.randn(rows, groups * GROUP, generator=torch.Generator().manual_seed(seed))
    weight *= magnitude
    weight[0, 0] *= outlier
    if zero_row:
        weight[-1] = 0
    layer = LAYERS[chosen].from_linear(dense(weight))
    back = layer.dequantised(0, rows).double()
    shape = (rows, groups, GROUP) if chosen is Format.NF4 else (rows, 1, groups * GROUP)
    largest = weight.double().view(shape).abs().amax(-1, keepdim=True)
    error = (back - weight.double()).view(shape).abs()
    assert (error <= (STEP[chosen] + 2.0**-8) * largest).all()
    if zero_row:
        assert (back[-1] == 0).all()
    for start, stop in ((0, rows), (rows - 1, rows), (0, 0)):
        assert torch.equal(layer.dequantised(start, stop).double(), back[start:stop])


@pytest.mark.parametrize("chosen", QUANTISED)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-37])
def test_vanishing_weights_become_zeros_or_stay_near(chosen, size):
    weight = torch.full((2, GROUP), size)
    back = LAYERS[chosen].from_linear(dense(weight)).dequantised(0, 2)
    assert torch.isfinite(back).all()
    assert (back == 0).all() or torch.allclose(back, weight, rtol=0.01, atol=0)


@pytest.mark.parametrize("chosen", QUANTISED)
@pytest.mark.parametrize("batch", [(1, 1), (3,), (2, 5), (40,)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_its_weight(chosen, batch, bias):
    torch.manual_seed(3)
    linear = dense(torch.randn(24, 128), torch.randn(24) if bias else None)
    layer = LAYERS[chosen].from_linear(linear)
    x = torch.randn(*batch, 128).to(DTYPE)
    wanted = x.double() @ layer.dequantised(0, 24).double().T
    if bias:
        wanted += layer.bias.double()
    # products in bf16: a relative 2^-8 of each weight and of the sum
    torch.testing.assert_close(layer(x).double(), wanted, rtol=2e-2, atol=0.15)
    torch.testing.assert_close(layer.rows(x, 5, 9).double(), wanted[..., 5:9], rtol=2e-2, atol=0.15)
    emulated = layer.as_linear(Role.BACKBONE)(x)
    torch.testing.assert_close(emulated.double(), wanted, rtol=2e-2, atol=0.15)
    assert layer(x).dtype == emulated.dtype == DTYPE


def test_float8_is_what_torch_rounds_to():
    weight = torch.randn(4, 64)
    for chosen, kind in (
        (Format.FP8_WEIGHT, torch.float8_e4m3fn),
        (Format.FP8_E5M2, torch.float8_e5m2),
    ):
        layer = LAYERS[chosen].from_linear(dense(weight))
        scale = (weight.abs().amax(1, keepdim=True) / torch.finfo(kind).max).bfloat16().float()
        assert torch.equal(layer.weight.float(), (weight / scale).to(kind).float())


def test_nf4_takes_the_nearest_level():
    weight = torch.linspace(-1, 1, 4 * GROUP).view(4, GROUP)
    weight[:, -1] = 1.0  # every group's scale is one
    layer = LAYERS[Format.NF4].from_linear(dense(weight))
    levels = torch.tensor(LEVELS)
    nearest = levels[(weight[..., None] - levels).abs().argmin(-1)]
    assert torch.equal(layer.dequantised(0, 4), nearest)


@pytest.mark.parametrize("chosen", QUANTISED)
def test_weights_take_the_bytes_they_should(chosen):
    layer = LAYERS[chosen].from_linear(dense(torch.randn(32, 256)))
    bits = 8 * sum(p.nbytes for p in layer.parameters()) / (32 * 256)
    assert bits <= {Format.NF4: 4.25}.get(chosen, 8.1)


def test_nf4_refuses_rows_that_do_not_divide():
    with pytest.raises(InputError, match="100 inputs do not divide"):
        LAYERS[Format.NF4].from_linear(dense(torch.randn(4, 100)))


def test_the_table_of_devices_agrees_with_the_layers():
    cpu = DeviceKind.cpu({"avx2", "asimd"})
    for chosen, layer in LAYERS.items():
        assert layer.reads_on_cpu == (support(chosen, cpu).state is State.NATIVE)
    assert set(LAYERS) == {chosen for chosen in Format if chosen.quantised}


@pytest.mark.parametrize("recipe", ["int8", "nf4", "fp8-weight", "int8,head=int8,*.down=nf4"])
def test_a_quantised_model_speaks(recipe, tiny_checkpoint, device):
    voice = quaver.load(tiny_checkpoint, recipe, str(device))
    audio = voice.generate("Hello there.", seed=1)
    assert len(audio.samples) and voice.info()["recipe"] == recipe
    again = quaver.load(tiny_checkpoint, recipe, str(device)).generate("Hello there.", seed=1)
    assert (audio.samples == again.samples).all()


def test_a_quantised_model_is_smaller_and_has_as_many_parameters(tiny_checkpoint):
    wide, narrow = (
        quaver.load(tiny_checkpoint, recipe, "cpu").info() for recipe in ("bf16", "int8")
    )
    assert narrow["parameters"] == wide["parameters"]
    assert narrow["bytes"] < wide["bytes"]
    # the layers alone are halved; scales, norms and the head are not
    assert 0.5 < narrow["step_bytes"] / wide["step_bytes"] < 0.75


def test_logits_stay_near_those_of_the_original(tiny_checkpoint, device):
    tokens = torch.arange(3, 40, device=device)[None]
    wanted = load_orpheus(tiny_checkpoint, "tiny", find_recipe("fp32"), device)(tokens)
    worst = {"bf16": 40.0, "int8": 35.0, "fp8-weight": 25.0, "fp8-e5m2": 19.0, "nf4": 15.0}
    for recipe, decibels in worst.items():
        found = load_orpheus(tiny_checkpoint, "tiny", find_recipe(recipe), device)(tokens)
        noise = (found - wanted).square().mean()
        assert 10 * torch.log10(wanted.square().mean() / noise) > decibels, recipe


def test_layers_are_replaced_by_name(tiny_checkpoint):
    recipe = find_recipe("bf16,*.layers.1.mlp.*=int8")
    model = load_orpheus(tiny_checkpoint, "tiny", recipe, torch.device("cpu"))
    found = {n for n, m in model.named_modules() if type(m) is LAYERS[Format.INT8]}
    assert found == {"backbone.layers.1.mlp.gate_up", "backbone.layers.1.mlp.down"}


def test_a_pattern_that_matches_nothing_is_told(tiny_checkpoint):
    recipe = find_recipe("bf16,*.mpl.*=int8")
    with pytest.raises(InputError, match=r"no layer is called \*\.mpl\.\*; the last one is head"):
        load_orpheus(tiny_checkpoint, "tiny", recipe, torch.device("cpu"))


def test_a_layer_that_does_not_fit_is_named():
    model = torch.nn.Sequential(dense(torch.randn(4, 100)))
    with pytest.raises(InputError, match="0: nf4 keeps weights in groups of 64"):
        quantise(model, find_recipe("nf4"), "cpu")
