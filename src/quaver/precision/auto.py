"""`auto`: the fastest recipe that a device runs and has room for, and why it was taken."""

from __future__ import annotations

from dataclasses import dataclass

from quaver.core.errors import UnsupportedError
from quaver.precision.devices import DeviceKind, State, default_recipe, support
from quaver.precision.recipe import RECIPES, Recipe
from quaver.precision.roles import Format, Role

AUTO = "auto"
# Bytes a parameter, its share of the scales included.
BYTES = {
    Format.FP32: 4.0,
    Format.BF16: 2.0,
    Format.FP16: 2.0,
    Format.INT8: 1.01,
    Format.NF4: 0.54,
}
RESERVE = {"cpu": 0.5e9, "cuda": 1.5e9}  # codec, keys and values, workspace, CUDA's own


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe, and the sentence that says why."""

    recipe: Recipe
    reason: str


def choose(device: DeviceKind, parameters: int, free: float) -> Choice:
    """The first of the device's recipes, fastest first, that fits into `free` bytes.

    UnsupportedError if none does, with what would.
    """
    reserve = RESERVE[device.type]
    needs = {chosen: parameters * BYTES[chosen] + reserve for chosen in _ranked(device)}
    for chosen, need in needs.items():
        if need <= free:
            why = f"needs {need / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
            passed = [other for other in needs if other is not chosen and needs[other] > free]
            note = (
                f"; {', '.join(passed)} would need more" if passed else ", and is the fastest here"
            )
            return Choice(RECIPES[chosen], why + note)
    least = min(needs.values())
    raise UnsupportedError(
        f"no recipe fits: the smallest needs {least / 1e9:.1f} GB and {free / 1e9:.1f} GB are free "
        f"on the {device.type}; free memory, or choose a smaller model"
    )


def _ranked(device: DeviceKind) -> list[Format]:
    """Formats to try, fastest first."""
    if device.type == "cpu":
        first = default_recipe(device).format(Role.BACKBONE)
        return [first] if first.quantised else [first, Format.BF16]
    half = support(Format.BF16, device).state is State.NATIVE
    return [Format.BF16 if half else Format.FP16, Format.INT8, Format.NF4]
