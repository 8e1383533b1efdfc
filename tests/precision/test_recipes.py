"""Recipes: what is written, what it means, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quaver.core.errors import InputError
from quaver.precision import RECIPES, Format, Recipe, Role, find_recipe
from quaver.precision.devices import DeviceKind, State, recipe_support, support

overrides = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["embed", "kv"]), st.sampled_from(["fp32", "bf16", "fp16"])),
        st.tuples(st.sampled_from(["head"]), st.sampled_from(list(Format))),
        st.tuples(
            st.sampled_from(["*.down", "backbone.layers.0.*", "*.qkv"]),
            st.sampled_from(["int8", "bf16", "nf4"]),
        ),
    ),
    max_size=6,
)


@given(base=st.sampled_from(["bf16", "int8", "nf4", "fp8-weight"]), given_=overrides)
def test_a_recipe_prints_as_what_it_is_read_from(base, given_):
    text = ",".join([base, *(f"{key}={value}" for key, value in given_)])
    recipe = find_recipe(text)
    again = find_recipe(str(recipe))
    assert again.as_dict() == recipe.as_dict()
    assert str(again) == str(recipe)
    assert hash(again) == hash(recipe) and again == recipe


def test_named_recipes_keep_embedding_head_and_codec_high():
    assert list(RECIPES) == list(Format)
    for name in ("int8", "fp8-weight", "fp8-e5m2", "nf4"):
        formats = find_recipe(name).as_dict()
        assert formats == {
            "embed": "bf16",
            "backbone": name,
            "head": "bf16",
            "kv": "bf16",
            "codec": "tf32",
        }


def test_a_codec_is_as_exact_as_what_stands_before_it_deserves():
    assert find_recipe("fp32").format(Role.CODEC) is Format.FP32
    assert find_recipe("fp8,codec=fp32").format(Role.CODEC) is Format.FP32
    assert find_recipe("bf16").format(Role.CODEC) is Format.TF32


def test_overrides_reach_roles_and_layers():
    recipe = find_recipe("int8, head=nf4, kv=fp32, *.down=bf16, backbone.layers.0.*=nf4")
    assert recipe.format(Role.HEAD) is Format.NF4
    assert recipe.format(Role.KV) is Format.FP32
    assert recipe.layer_format("backbone.layers.3.mlp.down", Role.BACKBONE) is Format.BF16
    # the last that matches counts
    assert recipe.layer_format("backbone.layers.0.mlp.down", Role.BACKBONE) is Format.NF4
    assert recipe.layer_format("backbone.layers.3.attention.qkv", Role.BACKBONE) is Format.INT8
    assert str(recipe) == "int8,head=nf4,kv=fp32,*.down=bf16,backbone.layers.0.*=nf4"
    assert str(find_recipe("int8,head=bf16")) == "int8", "an override that changes nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fp9", "unknown recipe 'fp9'; allowed are fp32, tf32, bf16"),
        ("", "unknown recipe ''"),
        ("int8,", "'' in recipe 'int8,' is no override"),
        ("int8,haed=bf16", "'haed=bf16' in recipe .* a role of embed, backbone, head"),
        ("int8,head=int7", "unknown format in 'head=int7'; allowed are fp32"),
        ("int8,head", "'head' in recipe 'int8,head' is no override"),
        (
            "int8,kv=nf4",
            "gives kv the format nf4; allowed are bf16, fp16, fp32, fp8, fp8-e5m2, int8",
        ),
        ("bf16,codec=bf16", "gives codec the format bf16; allowed are fp32"),
        ("int8,*.down=fp32", r"multiplies \*.down as fp32, its neighbours as bfloat16"),
    ],
)
def test_a_wrong_recipe_is_told(text, message):
    with pytest.raises(InputError, match=message):
        find_recipe(text)


def test_a_recipe_made_by_hand_is_checked():
    with pytest.raises(InputError, match="kv the format nf4"):
        Recipe("mine", Format.NF4)


def test_devices_say_how_and_why():
    old, new = DeviceKind.cpu({"sse2"}), DeviceKind.cpu({"avx2", "avx512_bf16"})
    turing, hopper = DeviceKind.cuda((7, 5)), DeviceKind.cuda((9, 0))
    states = {
        (chosen, name): support(chosen, device).state
        for chosen in Format
        for name, device in (("old", old), ("new", new), ("turing", turing), ("hopper", hopper))
    }
    assert {states[Format.FP32, name] for name in ("old", "new", "turing", "hopper")} == {
        State.NATIVE
    }
    assert states[Format.BF16, "old"] is states[Format.BF16, "turing"] is State.EMULATED
    assert states[Format.BF16, "new"] is states[Format.BF16, "hopper"] is State.NATIVE
    assert states[Format.INT8, "new"] is State.NATIVE
    assert states[Format.NF4, "new"] is State.EMULATED
    assert states[Format.NF4, "hopper"] is State.STORAGE
    assert states[Format.FP8, "hopper"] is states[Format.INT8_DYNAMIC, "hopper"] is State.NATIVE
    for chosen in Format:
        for device in (old, new, turing, hopper):
            found = support(chosen, device)
            assert bool(found.reason) == (found.state is not State.NATIVE)
    assert recipe_support(find_recipe("int8"), DeviceKind.cpu({"avx2"})).state is State.NATIVE
    worst = recipe_support(find_recipe("int8,*.down=nf4"), new)
    assert worst.state is State.EMULATED
    assert "nf4" in str(worst)


@pytest.mark.parametrize(
    ("capability", "native"),
    [
        ((7, 0), set()),
        ((7, 5), {"fp32", "fp16"}),
        ((8, 0), {"fp32", "tf32", "fp16", "bf16", "int8-dynamic"}),
        ((8, 6), {"fp32", "tf32", "fp16", "bf16", "int8-dynamic"}),
        ((8, 9), {"fp32", "tf32", "fp16", "bf16", "int8-dynamic", "fp8", "fp8-static"}),
        ((9, 0), {"fp32", "tf32", "fp16", "bf16", "int8-dynamic", "fp8", "fp8-static"}),
        ((10, 0), {"fp32", "tf32", "fp16", "bf16", "int8-dynamic", "fp8", "fp8-static"}),
        ((12, 0), {"fp32", "tf32", "fp16", "bf16", "int8-dynamic", "fp8", "fp8-static"}),
    ],
)
def test_compute_capabilities_are_known(capability, native):
    device = DeviceKind.cuda(capability)
    states = {chosen.value: support(chosen, device) for chosen in Format}
    assert {name for name, found in states.items() if found.state is State.NATIVE} == native
    if capability < (7, 5):
        assert {found.state for found in states.values()} == {State.NO}
    else:
        # e4m3 is unpacked in registers from Ada on, all else from Ampere on
        assert ("registers" in states["fp8-weight"].reason) == (capability >= (8, 9))
        assert ("registers" in states["int4"].reason) == (capability >= (8, 0))
