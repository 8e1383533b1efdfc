"""Checkpoints that transformers quantised by its other methods, against transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from late import Late
from llama import CPU, TOKENS, llama
from quaver.core.errors import CheckpointError
from quaver.loading.orpheus import load_orpheus, stored_recipe
from quaver.precision import find_recipe
from quaver.quant import apply
from quaver.quant.layer import QuantisedLinear

transformers = Late("transformers")

FP32 = find_recipe("fp32")
BITSANDBYTES = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-nested": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    llama().save_pretrained(folder)
    return folder


def save_bitsandbytes(original: Path, out: Path, **options) -> transformers.LlamaForCausalLM:
    config = transformers.BitsAndBytesConfig(**options)
    model = transformers.LlamaForCausalLM.from_pretrained(
        original, quantization_config=config, device_map="cpu"
    )
    model.save_pretrained(out)
    return model


@pytest.mark.parametrize("kind", BITSANDBYTES)
def test_bitsandbytes_weights_are_the_same(kind, original, tmp_path):
    theirs = save_bitsandbytes(original, tmp_path, **BITSANDBYTES[kind])
    recipe = kind.removesuffix("-nested")
    assert str(stored_recipe(tmp_path)) == recipe
    packed = load_orpheus(tmp_path, "theirs", find_recipe(recipe), CPU)
    dense = load_orpheus(tmp_path, "theirs", FP32, CPU)
    weights = []
    for layer in theirs.model.layers:
        qkv = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
        groups = [qkv, [layer.self_attn.o_proj], [layer.mlp.gate_proj, layer.mlp.up_proj]]
        weights += [torch.cat([as_dense(m) for m in group]) for group in groups]
        weights.append(as_dense(layer.mlp.down_proj))
    found = [p for n, p in dense.named_parameters() if p.dim() == 2 and "layers" in n]
    for ours, wanted in zip(found, weights, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-7)
    # their scales are wider than a CPU's kernel takes, so these layers are unpacked once
    assert not any(isinstance(module, QuantisedLinear) for module in packed.modules())


def as_dense(module: torch.nn.Module) -> torch.Tensor:
    """What bitsandbytes multiplies with, by its own arithmetic."""
    from bitsandbytes.functional import dequantize_4bit

    weight = module.weight
    if weight.dtype is torch.int8:
        return weight.float() * module.weight.SCB[:, None] / 127
    return dequantize_4bit(weight.data, weight.quant_state).float()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("blocksize", 0),
        ("shape", [-2, -64]),
        ("shape", [float("inf"), 64]),
        ("nested_blocksize", -1),
        ("nested_blocksize", 10**13),
        ("nested_offset", float("nan")),
    ],
)
def test_a_damaged_state_is_told(key, value, original, tmp_path):
    save_bitsandbytes(original, tmp_path, **BITSANDBYTES["nf4-nested"])
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight.quant_state.bitsandbytes__nf4"
    state = json.loads(bytes(weights[name].tolist())) | {key: value}
    weights[name] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    if value == 10**13:  # all scales share one: odd, and harmless
        load_orpheus(tmp_path, "theirs", FP32, CPU)
        return
    with pytest.raises(CheckpointError, match=r"bitsandbytes__nf4 (says|is damaged)"):
        load_orpheus(tmp_path, "theirs", FP32, CPU)


def test_bitsandbytes_fp4_is_refused(original, tmp_path):
    save_bitsandbytes(original, tmp_path, load_in_4bit=True, bnb_4bit_quant_type="fp4")
    with pytest.raises(CheckpointError, match="bnb_4bit_quant_type 'fp4', which Quaver does not"):
        stored_recipe(tmp_path)


def write_finegrained(original: Path, out: Path, block: int | None, static: bool = False) -> None:
    """By the description of the method: `weight_scale_inv` multiplies."""
    weights = load_file(original / "model.safetensors")
    for name in [n for n in weights if n.endswith("_proj.weight")]:
        weight = weights[name]
        rows, columns = weight.shape
        size = (block, block) if block else (rows, columns)
        blocks = weight.view(rows // size[0], size[0], columns // size[1], size[1])
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448
        weights[name] = (blocks / scale).view(rows, columns).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale[:, 0, :, 0] if block else scale.reshape(())
        if static:
            weights[name.replace("weight", "activation_scale")] = torch.tensor(0.01)
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    config = json.loads((original / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "activation_scheme": "static" if static else "dynamic",
        "weight_block_size": [block, block] if block else None,
        "modules_to_not_convert": ["lm_head"],
    }
    (out / "config.json").write_text(json.dumps(config))


def test_finegrained_blocks_are_the_same(original, tmp_path):
    write_finegrained(original, tmp_path, 128)
    assert str(stored_recipe(tmp_path)) == "fp8-block"
    reference = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path,
        quantization_config=transformers.FineGrainedFP8Config(dequantize=True),
        dtype=torch.float32,
    ).eval()
    with torch.inference_mode():
        wanted = reference(TOKENS).logits
        found = load_orpheus(tmp_path, "theirs", FP32, CPU)(TOKENS)
        plain = llama()(TOKENS).logits
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert (wanted - plain).abs().max() > 1e-2, "the comparison can fail"


@pytest.mark.parametrize("static", [False, True])
def test_finegrained_without_blocks_has_one_scale(static, original, tmp_path, monkeypatch):
    write_finegrained(original, tmp_path, None, static)
    recipe = stored_recipe(tmp_path)
    assert str(recipe) == ("fp8-static" if static else "fp8,kv=bf16")
    monkeypatch.setattr(apply, "emulates", lambda layer, device_type: False)
    layer = load_orpheus(tmp_path, "theirs", recipe, CPU).backbone.layers[0].mlp.down
    weight = llama().state_dict()["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(layer.scale, (weight.abs().max() / 448).repeat(256, 1))
    assert (layer.dequantised(0, 256) - weight).abs().max() <= 2**-4 * weight.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_block_size": [64, 64]}, r"weight_block_size \[64, 64\] of method 'fp8'"),
        ({"scale_fmt": "ue8m0"}, "scale_fmt 'ue8m0' of method 'fp8'"),
        ({"quant_method": "awq"}, "method 'awq'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(change, message, original, tmp_path):
    write_finegrained(original, tmp_path, 128)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_orpheus(tmp_path, "theirs", FP32, CPU)
