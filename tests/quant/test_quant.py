"""Quantised layers against float64, against others' arithmetic, and in a model that speaks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import quaver
from quaver.core.errors import InputError
from quaver.loading.orpheus import load_orpheus
from quaver.nn.linear import Linear, tf32_products
from quaver.precision import Format, Role, find_recipe
from quaver.precision.devices import DeviceKind, State, support
from quaver.precision.weight import QuantisedWeight
from quaver.quant.apply import LAYERS, quantise
from quaver.quant.layer import DTYPE
from quaver.quant.nf4 import GROUP as NF4_GROUP
from quaver.quant.nf4 import LEVELS
from quaver.quantizing import quantize

QUANTISED = [chosen for chosen in LAYERS if not chosen.calibrated]
WIDTH = 128  # divides into every format's groups
# Half a step of each format at a group's largest value, as a share of it, and the scale's rounding.
STEP = {
    Format.INT8: 0.5 / 127,
    Format.INT8_DYNAMIC: 0.5 / 127,
    Format.INT4: 1.0,  # a smaller scale may cut the largest; tested by itself
    Format.FP8: 2.0**-4,
    Format.FP8_BLOCK: 2.0**-4,
    Format.FP8_WEIGHT: 2.0**-4,
    Format.FP8_E5M2: 2.0**-3,
    Format.NF4: (1.0 - 0.6961928) / 2,
}


def quantised(chosen: Format, weight: torch.Tensor) -> torch.Tensor:
    """What `weight` becomes in a format, fp32."""
    return LAYERS[chosen].from_linear(dense(weight)).dequantised(0, len(weight))


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
    rows = WIDTH if chosen is Format.FP8_BLOCK else rows
    weight = torch.randn(rows, groups * WIDTH, generator=torch.Generator().manual_seed(seed))
    weight *= magnitude
    weight[0, 0] *= outlier
    if zero_row:
        weight[-1] = 0
    layer = LAYERS[chosen].from_linear(dense(weight))
    back = layer.dequantised(0, rows).double()
    shape = (rows, layer.scale.shape[1], -1)
    largest = weight.double().view(shape).abs().amax(-1, keepdim=True)
    if chosen is Format.FP8_BLOCK:
        largest = largest.amax(0)
    error = (back - weight.double()).view(shape).abs()
    assert (error <= (STEP[chosen] + 2.0**-8) * largest).all()
    if zero_row:
        assert (back[-1] == 0).all()
    for start, stop in ((0, rows), (rows - 1, rows), (0, 0)):
        assert torch.equal(layer.dequantised(start, stop).double(), back[start:stop])


@pytest.mark.parametrize("chosen", QUANTISED)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-37])
def test_vanishing_weights_become_zeros_or_stay_near(chosen, size):
    weight = torch.full((WIDTH, WIDTH), size)
    back = quantised(chosen, weight)
    assert torch.isfinite(back).all()
    assert (back == 0).all() or torch.allclose(back, weight, rtol=0.02, atol=0)


@pytest.mark.parametrize("chosen", QUANTISED)
@pytest.mark.parametrize("batch", [(1, 1), (3,), (2, 5), (40,)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_its_weight(chosen, batch, bias):
    torch.manual_seed(3)
    linear = dense(torch.randn(WIDTH, WIDTH), torch.randn(WIDTH) if bias else None)
    layer = LAYERS[chosen].from_linear(linear)
    x = torch.randn(*batch, WIDTH).to(DTYPE)
    rounded = layer.round_input(x, None)
    wanted = rounded.double() @ layer.dequantised(0, WIDTH).double().T
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
    weight = torch.linspace(-1, 1, 4 * NF4_GROUP).view(4, NF4_GROUP)
    weight[:, -1] = 1.0  # every group's scale is one
    levels = torch.tensor(LEVELS)
    nearest = levels[(weight[..., None] - levels).abs().argmin(-1)]
    assert torch.equal(quantised(Format.NF4, weight), nearest)


def test_int4_cuts_extremes_where_that_serves_the_rest():
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(5))
    groups = weight.view(64, 4, 128)
    scale = groups.abs().amax(-1, keepdim=True) / 7
    plain = ((groups / scale).round() * scale).view(64, 512)
    error = (quantised(Format.INT4, weight) - weight).square().mean()
    assert error < 0.95 * (plain - weight).square().mean()
    whole = torch.arange(-8, 8).float().repeat(1, 8)  # what fits comes back as it was
    whole[0, 0] = 7
    assert torch.equal(quantised(Format.INT4, whole.clamp(min=-7)), whole.clamp(min=-7))


def test_a_block_of_fp8_has_one_scale():
    weight = torch.randn(256, 384, generator=torch.Generator().manual_seed(6))
    layer = LAYERS[Format.FP8_BLOCK].from_linear(dense(weight))
    blocks = weight.view(2, 128, 3, 128).abs().amax((1, 3)) / 448
    assert torch.equal(layer.scale[::128].float(), blocks.bfloat16().float())
    assert torch.equal(layer.scale[0], layer.scale[127])


@pytest.mark.parametrize(
    ("chosen", "share"),
    [(Format.FP8, 2.0**-4), (Format.FP8_BLOCK, 2.0**-4), (Format.INT8_DYNAMIC, 0.6 / 127)],
)
@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1.0, 1e30])
def test_inputs_are_rounded_by_their_own_scale(chosen, share, magnitude):
    torch.manual_seed(7)
    x = torch.randn(5, 256) * magnitude * torch.tensor([1e-3, 1.0, 10.0, 100.0, 0.0])[:, None]
    back = LAYERS[chosen].round_input(x, None)
    largest = x.abs().amax(-1, keepdim=True)
    assert ((back - x).abs() <= share * largest).all()
    if magnitude:
        assert not torch.equal(back, x)
    alone = LAYERS[chosen].round_input(x[2:3], None)
    assert torch.equal(alone, back[2:3]), "a token's rounding must not depend on its neighbours"


def test_a_static_format_cuts_what_is_beyond_its_scale():
    layer = LAYERS[Format.FP8_STATIC]
    weight = layer.quantise(torch.randn(8, 128))
    made = layer(
        QuantisedWeight(weight.format, weight.elements, weight.scale, torch.tensor(0.5)), None
    )
    x = torch.tensor([[1.0, 300.0, -1e6]])
    assert torch.equal(made.round_input(x, made.input_scale), torch.tensor([[1.0, 224.0, -224.0]]))
    with pytest.raises(InputError, match="quaver quantize MODEL OUT --recipe fp8-static"):
        layer.from_linear(dense(torch.randn(8, 128)))


@pytest.mark.parametrize("chosen", QUANTISED)
def test_weights_take_the_bytes_they_should(chosen):
    layer = LAYERS[chosen].from_linear(dense(torch.randn(128, 256)))
    bits = 8 * sum(p.nbytes for p in layer.parameters()) / (128 * 256)
    assert bits <= {Format.NF4: 4.25, Format.INT4: 4.125, Format.FP8_BLOCK: 8.125}.get(chosen, 8.1)


@pytest.mark.parametrize("chosen", [Format.NF4, Format.INT4, Format.FP8_BLOCK])
def test_groups_refuse_rows_that_do_not_divide(chosen):
    with pytest.raises(InputError, match="100 inputs do not divide"):
        LAYERS[chosen].from_linear(dense(torch.randn(128, 100)))


def test_blocks_refuse_columns_that_do_not_divide():
    with pytest.raises(InputError, match="100 inputs do not divide"):
        LAYERS[Format.FP8_BLOCK].from_linear(dense(torch.randn(100, 128)))


def test_the_table_of_devices_agrees_with_the_layers():
    cpu = DeviceKind.cpu({"avx2", "asimd"})
    for chosen, kind in LAYERS.items():
        layer = kind(kind.quantise(torch.randn(128, 128)), None)
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


def test_tf32_is_a_matter_of_one_product(tiny_checkpoint, device):
    """Two recipes side by side: the process's setting is as before after each."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    tokens = torch.arange(3, 40, device=device)[None]
    narrow = load_orpheus(tiny_checkpoint, "tiny", find_recipe("tf32"), device)
    wide = load_orpheus(tiny_checkpoint, "tiny", find_recipe("fp32"), device)
    assert all(m.tf32 for m in narrow.modules() if isinstance(m, Linear))
    assert not any(m.tf32 for m in wide.modules() if isinstance(m, Linear))
    difference = (narrow(tokens) - wide(tokens)).abs().max() / wide(tokens).abs().max()
    assert products.fp32_precision == before
    assert difference == 0 if device.type == "cpu" else 1e-6 < difference < 1e-2
    with pytest.raises(RuntimeError), tf32_products():
        assert products.fp32_precision == "tf32"
        raise RuntimeError
    assert products.fp32_precision == before


def test_tf32_can_be_one_layers(tiny_checkpoint):
    recipe = find_recipe("fp32,*.down=tf32")
    model = load_orpheus(tiny_checkpoint, "tiny", recipe, torch.device("cpu"))
    found = {n for n, m in model.named_modules() if isinstance(m, Linear) and m.tf32}
    assert found == {"backbone.layers.0.mlp.down", "backbone.layers.1.mlp.down"}


@pytest.mark.parametrize("recipe", ["int8", "nf4", "fp8-weight", "fp8-e5m2"])
def test_every_device_writes_the_same(recipe, tiny_checkpoint, tmp_path, device):
    report = quantize(str(tiny_checkpoint), tmp_path / "here", recipe, device=str(device))
    quantize(str(tiny_checkpoint), tmp_path / "cpu", recipe, device="cpu")
    here, cpu = (load_file(tmp_path / name / "model.safetensors") for name in ("here", "cpu"))
    assert here.keys() == cpu.keys()
    for name, tensor in here.items():
        assert torch.equal(tensor.view(torch.uint8), cpu[name].view(torch.uint8)), name
    assert report.recipe == recipe


@pytest.mark.parametrize("recipe", ["fp8", "fp8-static", "int8-dynamic"])
def test_calibration_runs_where_it_is_told(recipe, tiny_checkpoint, tmp_path, device):
    report = quantize(str(tiny_checkpoint), tmp_path / "out", recipe, device=str(device), samples=2)
    assert report.recipe == recipe and report.calibration["texts"] == 2
    voice = quaver.load(tmp_path / "out", device=str(device))
    assert voice.info()["recipe"] == recipe
    assert len(voice.generate("Hello there.", seed=1).samples)
