"""Loading is exact or refused, with all misfits in one message and the module untouched."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from quaver.checkpoints.load import load_strict
from quaver.checkpoints.names import Source
from quaver.checkpoints.reader import open_tensors
from quaver.core.errors import CheckpointError

SOURCES = (
    Source("qk.weight", ("q.weight", "k.weight"), "concat", (4, 2)),
    Source("out.weight", ("out.weight_g", "out.weight_v"), "weight_norm"),
    Source("out.bias", ("out.bias",)),
    Source("steps", ("steps",)),
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qk = nn.Linear(3, 6, bias=False)
        self.out = nn.Linear(6, 2)
        self.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(2), persistent=False)


def on_meta(dtype: torch.dtype = torch.float32) -> Model:
    with torch.device("meta"):
        return Model().to(dtype)


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "q.weight": torch.randn(4, 3),
        "k.weight": torch.randn(2, 3),
        "out.weight_g": torch.rand(2, 1) + 1,
        "out.weight_v": torch.randn(2, 6),
        "out.bias": torch.randn(2),
        "steps": torch.tensor([3, 4]),
    }


def load(folder: Path, tensors: dict[str, Tensor], module: nn.Module, **options) -> None:
    save_file(tensors, folder / "model.safetensors")
    with open_tensors(folder) as reader:
        load_strict(module, reader, options.pop("sources", SOURCES), **options)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_every_weight_arrives_in_its_own_dtype(tmp_path, stored, wanted):
    tensors = {n: t.to(stored) if t.is_floating_point() else t for n, t in state().items()}
    module = on_meta(wanted)
    load(tmp_path, tensors, module)
    expected = torch.cat([tensors["q.weight"], tensors["k.weight"]]).to(wanted)
    assert torch.equal(module.qk.weight, expected)
    assert torch.equal(module.out.bias, tensors["out.bias"].to(wanted))
    assert module.steps.tolist() == [3, 4]
    assert not any(p.requires_grad or p.is_meta for p in module.parameters())
    assert {name for name, _ in module.named_parameters()} == {
        "qk.weight",
        "out.weight",
        "out.bias",
    }


def test_weights_do_not_lie_in_the_file(tmp_path):
    module = on_meta()
    load(tmp_path, state(), module)
    path = tmp_path / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(-64, 2)
        file.write(b"\xff" * 64)
    assert all(p.isfinite().all() for p in module.parameters())


def test_all_misfits_are_named_in_one_error_and_the_module_is_untouched(tmp_path):
    tensors = state()
    del tensors["q.weight"]
    tensors["k.weight"] = torch.zeros(3, 3)
    tensors["out.bias"] = torch.zeros(2, dtype=torch.int8)
    tensors["steps"] = torch.zeros(2)
    tensors["lm_head.weight"] = torch.zeros(1)
    module = on_meta()
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, tensors, module)
    message = str(caught.value)
    assert "does not fit Model" in message and "\n" not in message
    assert "1 missing: q.weight" in message
    assert "1 unexpected: lm_head.weight" in message
    assert "k.weight is [3, 3], expected [2, 3]" in message
    assert "out.bias is int8, expected float32 or bfloat16" in message
    assert "steps is float32, expected int64" in message
    assert all(p.is_meta for p in module.parameters())


def test_long_lists_are_cut_and_counted(tmp_path):
    extra = {f"layer.{i:02d}": torch.zeros(1) for i in range(30)}
    with pytest.raises(CheckpointError, match=r"30 unexpected: layer\.00, .*07 and 22 more"):
        load(tmp_path, state() | extra, on_meta())


def test_ignored_tensors_may_stay_unread(tmp_path):
    extra = {"lm_head.weight": torch.zeros(1), "layers.0.rotary.inv_freq": torch.zeros(1)}
    load(tmp_path, state() | extra, on_meta(), ignore=("lm_head.weight", "*.inv_freq"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_weights_are_refused_by_name(tmp_path, value):
    tensors = state()
    tensors["k.weight"][1, 2] = value
    tensors["out.bias"][0] = value
    module = on_meta()
    with pytest.raises(CheckpointError, match=r"NaN: q\.weight, k\.weight, out\.bias"):
        load(tmp_path, tensors, module)
    assert module.out.bias.is_meta


def test_overflow_of_a_narrower_dtype_is_refused(tmp_path):
    tensors = state()
    tensors["out.bias"][0] = 1e6
    load(tmp_path, tensors, on_meta(torch.bfloat16))
    with pytest.raises(CheckpointError, match=r"NaN: out\.bias"):
        load(tmp_path, tensors, on_meta(torch.float16))


def test_a_weight_norm_of_zero_length_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"NaN: out\.weight_g, out\.weight_v"):
        load(tmp_path, state() | {"out.weight_v": torch.zeros(2, 6)}, on_meta())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.int32])
def test_quantized_weights_must_have_the_very_dtype(tmp_path, dtype):
    def module() -> nn.Module:
        model = nn.Module()
        model.weight = nn.Parameter(torch.zeros(2, 3).to(dtype), requires_grad=False)
        return model

    options = {"sources": (Source("weight", ("w",)),)}
    stored = torch.tensor([[1.0, 2, 3], [4, 5, -6]]).to(dtype)
    loaded = module()
    load(tmp_path, {"w": stored}, loaded, **options)
    assert torch.equal(loaded.weight.float(), stored.float())
    with pytest.raises(CheckpointError, match="w is float32, expected"):
        load(tmp_path, {"w": stored.float()}, module(), **options)


def test_float8_nan_is_refused(tmp_path):
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(2).to(torch.float8_e4m3fn), requires_grad=False)
    stored = torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn)
    with pytest.raises(CheckpointError, match="NaN: w"):
        load(tmp_path, {"w": stored}, model, sources=(Source("weight", ("w",)),))


def test_tied_weights_stay_tied(tmp_path):
    model = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["embed"].weight
    load(tmp_path, {"e": torch.ones(4, 3)}, model, sources=(Source("embed.weight", ("e",)),))
    assert model["head"].weight is model["embed"].weight
    assert model["head"].weight.sum() == 12


@pytest.mark.parametrize(
    "sources",
    [SOURCES[1:], (*SOURCES, SOURCES[0]), (*SOURCES, Source("typo", ("out.bias",)))],
    ids=["none", "twice", "unknown"],
)
def test_a_plan_that_does_not_make_each_weight_once_is_a_bug(tmp_path, sources):
    with pytest.raises(ValueError, match="exactly one source"):
        load(tmp_path, state(), on_meta(), sources=sources)
