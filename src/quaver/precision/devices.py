"""What each kind of device does with each format, as data: natively, or how else, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from quaver.core.system import cpu_facts
from quaver.precision.recipe import RECIPES, Recipe
from quaver.precision.roles import Format, Role

# Any of a set lets a CPU multiply the format. Names as in /proc/cpuinfo, x86 and Arm.
CPU_FLAGS = {
    Format.BF16: frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    Format.FP16: frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
    Format.INT8: frozenset({"avx2", "avx512f", "asimd"}),
    Format.INT8_DYNAMIC: frozenset({"avx2", "avx512f", "asimd"}),
}
CUDA_LEAST = (7, 5)  # torch's own kernels have no code for older devices
CUDA_FP8 = (8, 9)  # the first compute capability that multiplies fp8, and reads E4M3 at speed
CUDA_BF16 = (8, 0)  # the first compute capability that multiplies bf16
# Formats of E4M3 elements, and those whose inputs are rounded too, so that GPUs multiply them.
E4M3 = frozenset({Format.FP8, Format.FP8_STATIC, Format.FP8_BLOCK, Format.FP8_WEIGHT})
MULTIPLIED = frozenset({Format.FP8, Format.FP8_STATIC, Format.INT8_DYNAMIC})


class State(StrEnum):
    """How a device runs a format, best first."""

    NATIVE = "native"
    STORAGE = "storage only"  # kept small, unpacked for each product
    EMULATED = "emulated"  # same results, no smaller and no faster
    NO = "no"  # it cannot


_ORDER = list(State)


@dataclass(frozen=True, slots=True)
class Support:
    """A state, and for all but native ones the reason."""

    state: State
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What is known of a device: its type, a CPU's flags, a GPU's compute capability."""

    type: str
    flags: frozenset[str] = frozenset()
    capability: tuple[int, int] | None = None

    @classmethod
    def cpu(cls, flags: Iterable[str]) -> Self:
        return cls("cpu", frozenset(flags))

    @classmethod
    def this_cpu(cls) -> Self:
        """The CPU of this machine; where its flags cannot be read, one without any."""
        facts = cpu_facts()
        return cls.cpu((facts.get("flags") or facts.get("Features") or "").split())

    @classmethod
    def cuda(cls, capability: tuple[int, int]) -> Self:
        return cls("cuda", capability=capability)


def support(chosen: Format, device: DeviceKind) -> Support:
    """How `device` runs `chosen`."""
    if device.type == "cuda" and (device.capability or (0, 0)) < CUDA_LEAST:
        return Support(State.NO, "torch needs compute capability 7.5 or newer; use the CPU")
    if chosen is Format.FP32:
        return Support(State.NATIVE)
    return _on_cpu(chosen, device) if device.type == "cpu" else _on_cuda(chosen, device)


def recipe_support(recipe: Recipe, device: DeviceKind) -> Support:
    """The worst of the layers' formats: a token spends its time there."""
    formats = {recipe.format(Role.BACKBONE)} | {chosen for _, chosen in recipe.layers}
    found = [support(chosen, device) for chosen in sorted(formats)]
    return max(found, key=lambda each: _ORDER.index(each.state))


def default_recipe(device: DeviceKind) -> Recipe:
    """Taken where none is named: bf16 on a GPU, or fp16; int8 on a CPU, or fp32. The second where
    the first is emulated. docs/decisions/004-int8-on-cpus.md says why.
    """
    cuda = device.type == "cuda"
    first, second = (Format.BF16, Format.FP16) if cuda else (Format.INT8, Format.FP32)
    return RECIPES[first if support(first, device).state is State.NATIVE else second]


def _on_cpu(chosen: Format, device: DeviceKind) -> Support:
    if chosen is Format.TF32:
        return Support(State.EMULATED, "CPUs multiply fp32 as it is: the same as fp32")
    if chosen in CPU_FLAGS:
        if CPU_FLAGS[chosen] & device.flags:
            return Support(State.NATIVE)
        return Support(State.EMULATED, f"this CPU does not multiply {chosen}; fp32 is faster")
    return Support(State.EMULATED, f"{chosen} weights are unpacked to bf16 when they are loaded")


def reads_packed(chosen: Format, capability: tuple[int, int]) -> bool:
    """Whether a CUDA device has kernels that unpack a quantised format in registers."""
    return capability >= (CUDA_FP8 if chosen in E4M3 else CUDA_BF16)


def _on_cuda(chosen: Format, device: DeviceKind) -> Support:
    capability = device.capability or (0, 0)
    dense = "bf16" if capability >= CUDA_BF16 else "fp16"
    if chosen in (Format.BF16, Format.TF32) and dense == Format.FP16:
        return Support(State.EMULATED, f"{chosen} needs compute capability 8.0; fp16 is faster")
    if not chosen.quantised:
        return Support(State.NATIVE)
    if not reads_packed(chosen, capability):
        return Support(State.STORAGE, f"unpacked to memory for each product: slower than {dense}")
    if chosen in MULTIPLIED:
        return Support(State.NATIVE)
    return Support(State.STORAGE, "unpacked in registers and multiplied as bf16")
