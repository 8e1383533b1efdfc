"""Triton kernels against float64. Without a GPU they run where TRITON_INTERPRET=1 is set."""

import os

import pytest
import torch

from quaver.precision import Format
from quaver.precision.weight import QuantisedWeight
from quaver.quant.apply import LAYERS

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("kernels need a GPU, or triton and TRITON_INTERPRET=1", allow_module_level=True)
skinny = pytest.importorskip("quaver.quant.kernels.skinny", reason="triton is not installed")
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
FORMATS = [chosen for chosen in LAYERS if not chosen.calibrated]
SHAPES = (
    [(128, 128), (128, 384), (256, 1024)]
    if INTERPRETED
    else [
        (128, 128),
        (5120, 3072),
        (16384, 3072),
        (3072, 8192),
    ]
)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert torch.isfinite(found).all()
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_a_skinny_product_is_that_of_its_weight(chosen, shape, rows):
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(shape, generator=generator)
    weight[:, 5] *= 30  # an outlier channel
    weight[3] = 0
    x = torch.randn(rows, shape[1], generator=generator).bfloat16()
    made = LAYERS[chosen].quantise(weight)
    wanted = x.double() @ LAYERS[chosen].dequantise(made.elements, made.scale).double().T
    found = skinny.skinny_product(
        x.to(DEVICE),
        made.elements.to(DEVICE),
        made.scale.to(DEVICE),
        chosen,
    )
    # bf16 of the result, and of NormalFloat's levels
    assert error(found.cpu(), wanted) < (4e-3 if chosen is Format.NF4 else 2.5e-3)
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize(("columns", "inputs"), [(1, 16), (33, 48), (100, 129), (7, 1000)])
def test_odd_shapes_are_whole(columns, inputs):
    """Rows of a head, such as one for the stop token, and inputs that no block divides."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(columns, inputs, generator=generator), torch.randn(2, inputs).bfloat16()
    made = LAYERS[Format.INT8].quantise(weight)
    wanted = x.double() @ LAYERS[Format.INT8].dequantise(made.elements, made.scale).double().T
    found = skinny.skinny_product(
        x.to(DEVICE), made.elements.to(DEVICE), made.scale.to(DEVICE), Format.INT8
    )
    assert error(found.cpu(), wanted) < 2.5e-3


@pytest.mark.skipif(INTERPRETED, reason="PyTorch's own kernels need a GPU")
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
