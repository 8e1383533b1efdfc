"""`auto`: what it takes for a device, and why."""

import json

import pytest
import torch

import quaver
from quaver.core.errors import UnsupportedError
from quaver.core.system import free_memory
from quaver.families.orpheus.config import OrpheusConfig
from quaver.loading import _weight_bytes
from quaver.loading.orpheus import load_orpheus
from quaver.precision import find_recipe
from quaver.precision.auto import choose
from quaver.precision.devices import DeviceKind

# of Orpheus-3B, by count: 2.82 G weights in layers, the rest stays wide
BYTES = {"fp32": 13.2e9, "bf16": 6.6e9, "fp16": 6.6e9, "int8": 3.8e9, "fp8": 3.8e9, "nf4": 2.5e9}
HOPPER, AMPERE, TURING = (DeviceKind.cuda(each) for each in ((9, 0), (8, 0), (7, 5)))
NEW, OLD = DeviceKind.cpu({"avx2"}), DeviceKind.cpu({"sse2"})


def orpheus(recipe):
    return BYTES[str(recipe)]


@pytest.mark.parametrize(
    ("device", "gigabytes", "taken"),
    [
        (HOPPER, 140, "fp8"),
        (HOPPER, 4, "nf4"),
        (AMPERE, 140, "bf16"),
        (AMPERE, 8.2, "bf16"),
        (AMPERE, 8, "int8"),
        (AMPERE, 4, "nf4"),
        (TURING, 16, "fp16"),
        (NEW, 64, "int8"),
        (OLD, 64, "fp32"),
        (OLD, 10, "bf16"),
    ],
)
def test_the_fastest_that_fits(device, gigabytes, taken):
    choice = choose(device, orpheus, gigabytes * 1e9)
    assert str(choice.recipe) == taken
    assert choice.reason.startswith("needs ")
    assert f"{gigabytes:.1f} GB free" in choice.reason
    assert choose(device, orpheus, 1e12).reason.endswith("and is the fastest here")


@pytest.mark.parametrize("device", [HOPPER, AMPERE, TURING, NEW, OLD])
def test_none_fits(device):
    with pytest.raises(UnsupportedError, match=r"the smallest needs .* and 1\.0 GB are free"):
        choose(device, orpheus, 1e9)


def test_it_is_taken_and_told(tiny_checkpoint, capsys):
    info = quaver.load(tiny_checkpoint, "auto", "cpu").info()
    assert info["recipe"] in ("int8", "fp32")
    assert "GB free" in info["recipe_reason"]
    assert quaver.load(tiny_checkpoint, "bf16", "cpu").info()["recipe_reason"] is None


def test_this_machine_is_looked_at():
    assert DeviceKind.this_cpu().type == "cpu"
    assert free_memory() > 1e8


def test_bytes_are_those_of_the_loaded_model(tiny_checkpoint):
    config = OrpheusConfig.from_dict(json.loads((tiny_checkpoint / "config.json").read_text()), "")
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for name in ("fp32", "bf16", "int8", "nf4"):
        recipe = find_recipe(name)
        model = load_orpheus(tiny_checkpoint, "tiny", recipe, cpu)
        loaded = sum(weight.nbytes for weight in model.parameters())
        expected = _weight_bytes(config, recipe, cpu)
        # an int8 model is read as bf16 first
        wide = _weight_bytes(config, find_recipe("bf16"), cpu)
        assert expected == (wide if name == "int8" else loaded)
        if name == "int8":
            hosted = load_orpheus(tiny_checkpoint, "tiny", recipe, cpu, text_on_host=True)
            small = sum(weight.nbytes for weight in hosted.parameters())
            assert _weight_bytes(config, recipe, cuda) == small < loaded < wide
