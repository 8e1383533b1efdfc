"""`auto`: the fastest recipe that a device has room for, and why it was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quaver.core.errors import UnsupportedError
from quaver.precision.devices import CUDA_FP8, DeviceKind, default_recipe
from quaver.precision.recipe import RECIPES, Recipe
from quaver.precision.roles import Format

AUTO = "auto"
# What to try after the device's default, fastest first. Before it comes fp8, where it is native.
NEXT = {"cpu": (Format.BF16,), "cuda": (Format.INT8, Format.NF4)}
RESERVE = {"cpu": 0.5e9, "cuda": 1.5e9}  # codec, keys and values, workspace, CUDA's own
# Of each stream: recorded steps and what they work in, the codec's windows. 600 took 4.5 GB.
STREAM_RESERVE = {"cpu": 0.0, "cuda": 6e6}


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe, and the sentence that says why."""

    recipe: Recipe
    reason: str


def choose(device: DeviceKind, weight_bytes: Callable[[Recipe], float], free: float) -> Choice:
    """The first of the device's recipes, fastest first, that fits into `free` bytes.

    `weight_bytes` says how much a recipe's weights take at most, loading included.
    UnsupportedError if none fits.
    """
    too_large: list[Recipe] = []
    needs: list[float] = []
    for recipe in _fastest_first(device):
        needs.append(weight_bytes(recipe) + RESERVE[device.type])
        if needs[-1] <= free:
            why = f"needs {needs[-1] / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
            more = f"; {', '.join(map(str, too_large))} would need more"
            return Choice(recipe, why + (more if too_large else ", and is the fastest here"))
        too_large.append(recipe)
    raise UnsupportedError(
        f"no recipe fits: the smallest needs {min(needs) / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
        f"free on the {device.type}; free memory, or choose a smaller model"
    )


def _fastest_first(device: DeviceKind) -> list[Recipe]:
    native = device.type == "cuda" and (device.capability or (0, 0)) >= CUDA_FP8
    before = [RECIPES[Format.FP8]] if native else []
    return [*before, default_recipe(device), *(RECIPES[name] for name in NEXT[device.type])]
