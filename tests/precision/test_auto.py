"""`auto`: what it takes for a device, and why."""

import pytest

import quaver
from quaver.core.errors import UnsupportedError
from quaver.precision.auto import choose
from quaver.precision.devices import DeviceKind, free_memory

ORPHEUS = 3_300_000_000
HOPPER, TURING = DeviceKind.cuda((9, 0)), DeviceKind.cuda((7, 5))
NEW, OLD = DeviceKind.cpu({"avx2"}), DeviceKind.cpu({"sse2"})


@pytest.mark.parametrize(
    ("device", "gigabytes", "taken"),
    [
        (HOPPER, 140, "bf16"),
        (HOPPER, 8.2, "bf16"),
        (HOPPER, 8, "int8"),
        (HOPPER, 4, "nf4"),
        (TURING, 16, "fp16"),
        (NEW, 64, "int8"),
        (OLD, 64, "fp32"),
        (OLD, 10, "bf16"),
    ],
)
def test_the_fastest_that_fits(device, gigabytes, taken):
    choice = choose(device, ORPHEUS, gigabytes * 1e9)
    assert str(choice.recipe) == taken
    assert choice.reason.startswith("needs ")
    assert f"{gigabytes:.1f} GB free" in choice.reason
    assert choose(device, 1000, 1e12).reason.endswith("and is the fastest here")


@pytest.mark.parametrize("device", [HOPPER, TURING, NEW, OLD])
def test_none_fits(device):
    with pytest.raises(UnsupportedError, match=r"the smallest needs .* and 1\.0 GB are free"):
        choose(device, ORPHEUS, 1e9)


def test_it_is_taken_and_told(tiny_checkpoint, capsys):
    info = quaver.load(tiny_checkpoint, "auto", "cpu").info()
    assert info["recipe"] in ("int8", "fp32")
    assert "GB free" in info["recipe_reason"]
    assert quaver.load(tiny_checkpoint, "bf16", "cpu").info()["recipe_reason"] is None


def test_this_machine_is_looked_at():
    assert DeviceKind.this_cpu().type == "cpu"
    assert free_memory() > 1e8
