"""Quantised tensors through a file and back, and what is refused on the way."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from quaver.checkpoints.packed import QuantisedReader, tensors
from quaver.checkpoints.reader import open_tensors
from quaver.checkpoints.schemes import Schemes, quantization_config, stored_config
from quaver.core.errors import CheckpointError
from quaver.precision import Format
from quaver.precision.weight import QuantisedWeight
from quaver.quant.apply import LAYERS, dequantise

LAYER = "model.layers.0.mlp.down_proj"
NAME = f"{LAYER}.weight"


def quantised(chosen: Format, weight: torch.Tensor) -> QuantisedWeight:
    made = LAYERS[chosen].quantise(weight)
    scale = torch.tensor(0.25) if chosen.calibrated else None
    return QuantisedWeight(chosen, made.elements, made.scale, scale)


def open_written(folder, chosen: Format, stored: dict[str, torch.Tensor]) -> QuantisedReader:
    save_file({k: v.contiguous() for k, v in stored.items()}, folder / "model.safetensors")
    schemes = Schemes(quantization_config({LAYER: chosen, "lm_head": Format.BF16}, Format.BF16))
    return QuantisedReader(open_tensors(folder), [LAYER, "lm_head"], schemes, dequantise)


@pytest.mark.parametrize("chosen", LAYERS)
@given(
    rows=st.integers(1, 5),
    groups=st.integers(1, 3),
    odd=st.integers(0, 7),
    seed=st.integers(0, 2**31),
    outlier=st.sampled_from([0.0, 1.0, 1e4]),
)
def test_a_weight_survives_a_file(chosen, rows, groups, odd, seed, outlier, tmp_path_factory):
    group = LAYERS[chosen].group
    columns = groups * group if group else 16 * groups + odd
    rows = 128 * rows if chosen is Format.FP8_BLOCK else rows
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weight[0] *= outlier
    made = quantised(chosen, weight)
    stored = dict(tensors(LAYER, made))
    with open_written(tmp_path_factory.mktemp("file"), chosen, stored) as reader:
        back = reader.packed(NAME)
        assert reader.names() == {NAME}
        assert reader.format(NAME) is chosen
        assert reader.shape(NAME) == back.shape == (rows, columns)
        assert torch.equal(back.elements.view(torch.uint8), made.elements.view(torch.uint8))
        assert torch.equal(back.scale, made.scale)
        assert torch.equal(reader.read(NAME), dequantise(made))
        assert (back.input_scale is None) == (not chosen.calibrated)
    bits = 8 * sum(t.nbytes for n, t in stored.items() if not n.endswith("shape"))
    if rows * columns > 4000:
        assert bits / (rows * columns) < (5.1 if chosen in (Format.INT4, Format.NF4) else 10)


def damage(chosen: Format, tmp_path, change) -> QuantisedReader:
    stored = dict(tensors(LAYER, quantised(chosen, torch.randn(128, 256))))
    change(stored)
    return open_written(tmp_path, chosen, stored)


@pytest.mark.parametrize(
    ("chosen", "change", "message"),
    [
        (Format.INT8, lambda s: s.pop(f"{LAYER}.weight_scale"), "weight_scale is missing"),
        (Format.INT8, lambda s: s.pop(f"{LAYER}.weight_packed"), "weight_packed is missing"),
        (
            Format.INT8,
            lambda s: s.update({f"{LAYER}.weight_shape": torch.tensor([128, 300])}),
            "does not hold 128 x 300",
        ),
        (
            Format.INT4,
            lambda s: s.update({f"{LAYER}.weight_shape": torch.tensor([-1, 256])}),
            r"weight_shape is \[-1, 256\]",
        ),
        (
            Format.INT4,
            lambda s: s.update({f"{LAYER}.weight_scale": torch.ones(128, 3)}),
            "has 3 scales a row where there is one for 128 of 256 inputs",
        ),
        (
            Format.FP8,
            lambda s: s.update({f"{LAYER}.weight_scale": torch.full((128, 1), torch.nan)}),
            "weight_scale has infinities or NaN",
        ),
        (
            Format.FP8,
            lambda s: s[NAME].view(torch.uint8).fill_(0x7F),
            f"{NAME} has infinities or NaN".replace(".", r"\."),
        ),
        (
            Format.FP8,
            lambda s: s.update({NAME: s[NAME].to(torch.float8_e5m2)}),
            "weight is float8_e5m2, expected float8_e4m3fn",
        ),
        (
            Format.FP8,
            lambda s: s.update({f"{LAYER}.weight_scale": torch.ones(64, 1)}),
            r"weight_scale is \[64, 1\] for 128 rows",
        ),
        (
            Format.FP8_STATIC,
            lambda s: s.update({f"{LAYER}.input_scale": torch.tensor([-1.0])}),
            "input_scale must be one positive number",
        ),
        (
            Format.FP8_STATIC,
            lambda s: s.pop(f"{LAYER}.input_scale"),
            "input_scale is missing",
        ),
    ],
)
def test_damage_is_told(chosen, change, message, tmp_path):
    with damage(chosen, tmp_path, change) as reader, pytest.raises(CheckpointError, match=message):
        reader.packed(NAME)


def test_what_a_scheme_has_no_place_for_is_left_over(tmp_path):
    """So that strict loading names it: zero points, say, which would change every weight."""
    extra = {f"{LAYER}.weight_zero_point": torch.zeros(128, 2, dtype=torch.int8)}
    with damage(Format.INT4, tmp_path, lambda stored: stored.update(extra)) as reader:
        assert reader.names() == {NAME, f"{LAYER}.weight_zero_point"}
        assert reader.shape(NAME) == (128, 256)


@pytest.mark.parametrize(
    ("targets", "ignore", "found"),
    [
        (["Linear"], [], True),
        (["Linear"], [LAYER], False),
        (["Linear"], ["re:.*down_proj$"], False),
        (["re:.*mlp.*"], [], True),
        ([LAYER], [], True),
        (["re:.*attn.*"], [], False),
    ],
)
def test_targets_are_names_patterns_and_classes(targets, ignore, found):
    config = quantization_config({LAYER: Format.INT8}, Format.BF16)
    config["config_groups"]["group_0"]["targets"] = targets
    config["ignore"] = ignore
    assert (Schemes(config).scheme(LAYER, frozenset()) is not None) == found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"symmetric": False}, "symmetric False"),
        ({"num_bits": 3}, "num_bits 3"),
        ({"strategy": "attn_head"}, "strategy attn_head"),
        ({"actorder": "group"}, "actorder group"),
        ({"dynamic": "local"}, "dynamic local"),
        ({"block_structure": [64, 64], "strategy": "block"}, r"block_structure \[64, 64\]"),
        ({"type": []}, r"type \[\]"),
    ],
)
def test_a_scheme_is_all_of_its_arguments(change, told):
    config = quantization_config({LAYER: Format.INT4}, Format.BF16)
    Schemes(config)
    config["config_groups"]["group_0"]["weights"] |= change
    with pytest.raises(CheckpointError, match=f"quantised by a scheme .*{told}"):
        Schemes(config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"transform_config": {"config_groups": {"R4": {}}}}, "transform_config .* does not read"),
        ({"sparsity_config": {"format": "sparse-24"}}, "sparsity_config .* does not read"),
        ({"format": ["a"]}, "quantised by a scheme"),
        ({"ignore": ["re:a{99999999999999}"]}, "has the pattern"),
        ({"ignore": ["re:" + "(" * 250]}, "has the pattern"),
        ({"ignore": ["x" * 1000]}, "has a name of 1000 characters"),
        ({"quant_method": "fp8", "activation_scheme": []}, "activation_scheme"),
        ({"quant_method": "fp8", "weight_block_size": [[1], [2]]}, "weight_block_size"),
        ({"quant_method": []}, "quantised by a method"),
    ],
)
def test_an_odd_configuration_is_one_line(change, told):
    config = quantization_config({LAYER: Format.INT8}, Format.BF16) | change
    if "format" in change:
        config["config_groups"]["group_0"].pop("format")
    with pytest.raises(CheckpointError, match=told):
        Schemes(config).scheme(LAYER, frozenset())


@pytest.mark.parametrize("found", [[], "fp8", 3])
def test_a_configuration_is_an_object(found):
    with pytest.raises(CheckpointError, match=r"quantization_config of config\.json is"):
        stored_config({"quantization_config": found})
    assert stored_config({}) is stored_config({"quantization_config": None}) is None


def test_inputs_in_groups_of_another_size_are_refused():
    config = quantization_config({LAYER: Format.FP8_BLOCK}, Format.BF16)
    inputs = config["config_groups"]["group_0"]["input_activations"]
    inputs["group_size"] = 64
    with pytest.raises(CheckpointError, match="group_size 64"):
        Schemes(config)
    del inputs["group_size"]
    with pytest.raises(CheckpointError, match="strategy group"):
        Schemes(config)


def test_groups_are_of_the_size_that_is_told(tmp_path):
    """Ragged groups would be read with their borders elsewhere."""
    stored = dict(tensors(LAYER, quantised(Format.INT4, torch.randn(8, 384))))
    stored[f"{LAYER}.weight_scale"] = torch.ones(8, 2)
    with (
        open_written(tmp_path, Format.INT4, stored) as reader,
        pytest.raises(CheckpointError, match="2 scales a row where there is one for 128 of 384"),
    ):
        reader.packed(NAME)
