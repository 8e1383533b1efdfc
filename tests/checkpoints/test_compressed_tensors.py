"""Checkpoints that compressed-tensors compressed: the same weights here, and the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from late import Late
from llama import CPU, TOKENS, llama
from quaver.checkpoints.schemes import stored_config
from quaver.core.errors import CheckpointError, InputError
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.weights import sources
from quaver.loading.orpheus import load_orpheus, stored_recipe
from quaver.precision import Role, find_recipe
from quaver.quant import apply
from quaver.quant.layer import QuantisedLinear

transformers = Late("transformers")
compressors = Late("compressed_tensors.compressors")
quantization = Late("compressed_tensors.quantization")
quantization_utils = Late("compressed_tensors.quantization.utils")

PRESETS = {
    "FP8": "fp8-static",
    "FP8_DYNAMIC": "fp8,kv=bf16",
    "FP8_BLOCK": "fp8-block",
    "W8A8": "int8-dynamic",
    "W8A16": "int8",
    "W4A16": "int4",
}


def compress(model: transformers.LlamaForCausalLM, preset: str, folder: Path) -> None:
    """By the steps of compressed-tensors' own guide."""
    config = quantization.QuantizationConfig(config_groups={preset: ["Linear"]}, ignore=["lm_head"])
    quantization.apply_quantization_config(model, config)
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        args, weight = scheme.weights, module.weight.data
        rows, columns = weight.shape
        views = {
            "tensor": weight.reshape(1, -1),
            "channel": weight[:, None],
            "group": weight.unflatten(-1, (-1, args.group_size or columns)),
            "block": weight.view(rows // 128 or 1, -1, columns // 128 or 1, min(128, columns))
            .transpose(1, 2)
            .flatten(2),
        }
        view = views[args.strategy]
        scale, _ = quantization_utils.calculate_qparams(view.amin(-1), view.amax(-1), args)
        module.weight_scale.data = scale.reshape(module.weight_scale.shape)
        if hasattr(module, "input_scale"):
            module.input_scale.data.fill_(0.01)
    compressor = compressors.ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def in_fp32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Orpheus:
    """Our model of a checkpoint, with activations in fp32, so that only mistakes differ."""
    monkeypatch.setattr(apply, "emulates", lambda layer, device_type: False)
    recipe = stored_recipe(folder)
    model = load_orpheus(folder, "llama", recipe, CPU)
    model._dtype = torch.float32
    model.embed.float()
    model.head.float()
    for module in model.modules():
        if type(module).__name__ == "RMSNorm":
            module.float()
    return model


@pytest.fixture(scope="module", params=PRESETS)
def theirs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    compress(llama(), request.param, folder)
    return request.param, folder


def test_what_it_compresses_gives_the_same_logits(theirs, monkeypatch):
    preset, folder = theirs
    model = in_fp32(folder, monkeypatch)
    assert str(stored_recipe(folder)) == PRESETS[preset]
    quantised = [m.format for m in model.modules() if isinstance(m, QuantisedLinear)]
    assert quantised == [find_recipe(PRESETS[preset]).format(Role.BACKBONE)] * 8
    reference = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted, found = reference(TOKENS).logits, model(TOKENS)
    if preset in ("W8A16", "W4A16"):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    else:
        # another order of summation rounds an input to the next step now and then, and all tokens
        # that look at that one differ: the layers are compared one by one below
        assert (found - wanted).square().mean() < 1e-3 * wanted.square().mean()
    with torch.inference_mode():
        original = llama()(TOKENS).logits
    assert (wanted - original).abs().max() > 1e-2, "the comparison can fail"


def test_each_layer_makes_the_same_of_the_same_inputs(theirs, monkeypatch):
    _, folder = theirs
    model = in_fp32(folder, monkeypatch)
    reference = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen = {}

    def note(name):
        return lambda module, inputs, output: seen.__setitem__(name, (inputs[0], output))

    with torch.inference_mode():
        reference(TOKENS)  # the first pass unpacks its weights
        for name, module in reference.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(note(name))
        reference(TOKENS)
        for source in sources(model.config):
            layer = dict(model.named_modules()).get(source.target.removesuffix(".weight"))
            if isinstance(layer, QuantisedLinear):
                parts = [seen[name.removesuffix(".weight")] for name in source.names]
                found, wanted = layer(parts[0][0]), torch.cat([out for _, out in parts], -1)
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_it_can_be_dequantised(theirs):
    _, folder = theirs
    dense = load_orpheus(folder, "llama", find_recipe("fp32"), CPU)
    assert not any(isinstance(module, QuantisedLinear) for module in dense.modules())
    original = llama().state_dict()
    row = dense.backbone.layers[1].attention.qkv.weight[-1]  # the last of v
    kept = original["model.layers.1.self_attn.v_proj.weight"][-1]
    assert 1e-4 < (row - kept).abs().max() / kept.abs().max() < 0.15
    assert torch.equal(dense.head.weight, original["lm_head.weight"])


def test_another_quantised_recipe_is_refused(theirs):
    preset, folder = theirs
    with pytest.raises(
        InputError, match=f"in {PRESETS[preset].split(',')[0]}, and recipe 'nf4' wants nf4; leave"
    ):
        load_orpheus(folder, "llama", find_recipe("nf4"), CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "by a method 'gptq', which Quaver does not read; it reads comp"),
        ({"config_groups": {"g": {"weights": {"num_bits": 2, "type": "int"}}}}, "num_bits 2"),
        ({"config_groups": None}, "has no config_groups"),
        ({"ignore": "lm_head"}, "ignore 'lm_head'; allowed: a list of names"),
    ],
)
def test_an_unknown_scheme_is_refused_by_name(tmp_path, change, message):
    compress(llama(), "W8A16", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_orpheus(tmp_path, "llama", find_recipe("bf16"), CPU)


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_quantization_config_is_none(nothing):
    assert stored_config({"quantization_config": nothing}) is None
