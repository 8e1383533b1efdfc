"""Triton kernels against float64. Without a GPU they run where TRITON_INTERPRET=1 is set."""

import pytest
import torch
from torch.nn import functional as F

from needs import INTERPRETED, NO_GPU, NO_TRITON, ONLY_GPU
from quaver.nn.linear import Linear
from quaver.nn.norm import RMSNorm
from quaver.precision import Format
from quaver.precision.weight import QuantisedWeight
from quaver.quant.apply import LAYERS

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip(NO_GPU, allow_module_level=True)
pytest.importorskip("quaver.nn.kernels.skinny", reason=NO_TRITON)
from quaver.nn.kernels.expand import expand

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
# Triton's interpreter rounds bf16 towards zero
HALF = torch.float16 if INTERPRETED else torch.bfloat16
FORMATS = [None, *LAYERS]
STEP = torch.tensor(0.02)  # of inputs that are calibrated: what is beyond 9 is cut
SHAPES = (
    [(128, 128), (256, 384), (128, 1024)]
    if INTERPRETED
    else [(128, 128), (5120, 3072), (16384, 3072), (3072, 8192)]
)
SURROUNDED = (128, 256) if INTERPRETED else SHAPES[1]
# of a result in bf16, and of NormalFloat's levels in it
CLOSE = 4e-3


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert torch.isfinite(found).all()
    return float((found.double() - wanted).norm() / wanted.norm())


def layer_of(chosen, weight):
    """A layer on the device, whose few rows take one kernel, and what its weight has become."""
    if chosen is None:
        dense = Linear(weight.shape[1], weight.shape[0], HALF)
        dense.weight.data = weight.to(HALF)
        layer, known = dense, dense.weight.double()
    else:
        made = LAYERS[chosen].quantise(weight)
        if chosen.calibrated:
            made = QuantisedWeight(chosen, made.elements, made.scale, STEP)
        layer = LAYERS[chosen](made, None)
        known = LAYERS[chosen].dequantise(made.elements, made.scale).double()
    layer.fused = True
    return layer.to(DEVICE), known.detach()


def inputs(rows, count, seed=0):
    return torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)).to(HALF)


def outliers(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[:, 5] *= 30  # a channel
    weight[3] = 0
    return weight


def rounded(chosen, x):
    """x [rows, in] as the format's products see it, float64."""
    if chosen is None or not LAYERS[chosen].rounds_inputs:
        return x.double()
    return LAYERS[chosen].round_input(x, STEP if chosen.calibrated else None).double()


def tolerance(chosen):
    """Triton's interpreter also rounds a few floats of eight bits, inputs' digits too, to half of
    what they are."""
    wrong = INTERPRETED and str(chosen).startswith("fp8")
    return 0.1 if wrong else CLOSE


@pytest.mark.parametrize("chosen", FORMATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 16, 40])
def test_a_product_of_few_rows_is_that_of_its_weight(chosen, shape, rows):
    layer, weight = layer_of(chosen, outliers(shape))
    x = inputs(rows, shape[1])
    found = layer(x.to(DEVICE)).cpu()
    assert error(found, rounded(chosen, x) @ weight.T) < tolerance(chosen)
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize("chosen", FORMATS, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 20, 100])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("normed", "added"), [(True, False), (False, True), (True, True)])
def test_what_stands_around_it_is_in_the_kernel(chosen, rows, gated, normed, added):
    outputs, count = SURROUNDED
    layer, weight = layer_of(chosen, torch.randn(outputs, count) / count**0.5)
    norm = RMSNorm(count, 1e-5)
    norm.weight.data = torch.rand(count, generator=torch.Generator().manual_seed(2)) + 0.5
    x = 3 * inputs(rows, count)
    wanted = rounded(chosen, norm(x) if normed else x) @ weight.T
    if gated:
        gate, up = wanted.chunk(2, dim=-1)
        wanted = F.silu(gate) * up
    residual = inputs(rows, wanted.shape[1], 3) if added else None
    if residual is not None:
        wanted = wanted + residual.double()
    found = layer(
        x.to(DEVICE),
        norm=norm.to(DEVICE) if normed else None,
        gated=gated,
        residual=None if residual is None else residual.to(DEVICE),
    )
    assert error(found.detach().cpu(), wanted) < 2 * tolerance(chosen)


@pytest.mark.parametrize("chosen", [Format.INT8, Format.INT4, Format.FP8_WEIGHT], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_inputs_far_below_the_largest_of_their_row_count(chosen, rows):
    """They are the last digits, of a row whose first are an outlier's."""
    weight = torch.randn(128, 1024)
    weight[:, 5] = 0
    layer, known = layer_of(chosen, weight)
    x = inputs(rows, 1024)
    x[:, 5] = 1000
    assert error(layer(x.to(DEVICE)).cpu(), x.double() @ known.T) < tolerance(chosen)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_first_digit_is_bounded_and_the_next_has_the_rest(rows):
    """127.5 of what 127 is the most of."""
    layer, weight = layer_of(Format.INT8, torch.randn(128, 1024))
    x = torch.zeros(rows, 1024).to(HALF)
    x[:, 7] = 127.5 / 64
    assert error(layer(x.to(DEVICE)).cpu(), x.double() @ weight.T) < 2.5e-3


@pytest.mark.parametrize(("columns", "count"), [(1, 16), (33, 48), (100, 129), (7, 1000)])
@pytest.mark.parametrize("rows", [1, 2])
def test_odd_shapes_are_whole(columns, count, rows):
    """Rows of a head, such as one for the stop token, and inputs that no block divides."""
    layer, weight = layer_of(Format.INT8, torch.randn(columns, count))
    x = inputs(rows, count)
    assert error(layer(x.to(DEVICE)).cpu(), x.double() @ weight.T) < CLOSE


@pytest.mark.parametrize("group", [64, 256])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_other_groups_of_inputs_share_a_scale_too(group, rows):
    """As others' checkpoints have them."""
    outputs, count = 96, 1536
    generator = torch.Generator().manual_seed(4)
    elements = torch.randint(0, 256, (outputs, count // 2), generator=generator).to(torch.uint8)
    scale = torch.rand(outputs, count // group, generator=generator).bfloat16()
    kind = LAYERS[Format.INT4]
    layer = kind(QuantisedWeight(Format.INT4, elements, scale), None)
    layer.fused = True
    x = inputs(rows, count)
    wanted = x.double() @ kind.dequantise(elements, scale).double().T
    assert error(layer.to(DEVICE)(x.to(DEVICE)).cpu(), wanted) < CLOSE


def test_sums_are_added_up_in_one_order():
    """However many programs share a sum, and whichever is done last."""
    layer, _ = layer_of(None, torch.randn(64, 4096))
    x = inputs(5, 4096).to(DEVICE)
    first = layer(x)
    for _ in range(2 if INTERPRETED else 200):
        assert torch.equal(layer(x), first)


@pytest.mark.skipif(INTERPRETED, reason=ONLY_GPU)
@pytest.mark.parametrize("chosen", [None, Format.FP8, Format.INT4], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_products_in_a_row_wait_for_each_other(chosen, rows):
    """A launch starts while the one before runs, and must not read its outputs too early."""
    count = 2048
    layers = [layer_of(chosen, torch.randn(count, count) / count**0.5)[0] for _ in range(8)]
    x = inputs(rows, count).to(DEVICE)

    def run(apart):
        y = x
        for layer in layers:
            y = layer(y)
            if apart:
                torch.cuda.synchronize()
        return y

    expected = run(apart=True)
    for _ in range(50):
        assert torch.equal(run(apart=False), expected)


@pytest.mark.skipif(INTERPRETED, reason=ONLY_GPU)
@pytest.mark.parametrize("chosen", [Format.FP8, Format.FP8_STATIC, Format.INT8_DYNAMIC])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [17, 200])
def test_a_large_product_multiplies_what_was_rounded(chosen, shape, rows):
    """In eight bits throughout: the sums are of the same rounded numbers as the twin's."""
    generator = torch.Generator().manual_seed(rows)
    weight, x = torch.randn(shape, generator=generator), torch.randn(rows, shape[1]).bfloat16()
    kind, scale = LAYERS[chosen], torch.tensor(0.01) if chosen.calibrated else None
    made = kind.quantise(weight)
    layer = kind(QuantisedWeight(chosen, made.elements, made.scale, scale), None).to(DEVICE)
    rounded = kind.round_input(x.double().float(), scale).double()
    wanted = rounded @ kind.dequantise(made.elements, made.scale).double().T
    assert error(layer(x.to(DEVICE)).cpu(), wanted) < 4e-3
    few = layer.rows(x.to(DEVICE), 3, 4)  # one row, such as the stop token's, is no large product
    assert error(few.cpu(), wanted[:, 3:4]) < 1e-2


@pytest.mark.parametrize("chosen", [Format.INT4, Format.NF4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_weight_expands_to_what_it_stands_for(chosen, shape):
    layer, weight = layer_of(chosen, outliers(shape))
    found = expand(layer.kept(0, shape[0]), torch.float32).cpu()
    assert torch.equal(found.double(), weight)
    x = inputs(65, shape[1])
    assert error(layer(x.to(DEVICE)).cpu(), x.double() @ weight.T) < tolerance(chosen)
