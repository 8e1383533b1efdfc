"""`quaver doctor`: what this machine has, and what of Quaver runs on it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quaver.precision import Recipe
    from quaver.precision.devices import DeviceKind

from quaver.cli.output import print_json, table_console

NEEDED = ("numpy", "torch", "safetensors", "tokenizers", "huggingface_hub.constants", "av")
EXTRAS = {"quality": ("jiwer", "pocketsphinx"), "train": ("scipy",)}
# Weights of Orpheus-3B: its layers, its table, and what speech needs of that.
LAYERS_3B, TABLE_3B, SPEECH_3B = 2.82e9, 0.48e9, 0.09e9
PROGRAMS = {"train": ("flite",)}


@dataclass(slots=True)
class Report:
    """All that doctor finds; `problems` are what keeps `quaver say` from working."""

    versions: dict[str, str]
    cpu: dict[str, Any]
    memory: dict[str, float | None]  # GB
    cuda: list[dict[str, Any]] = field(default_factory=list)
    encoders: dict[str, bool] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    hub: dict[str, bool] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    recipes: dict[str, dict[str, str]] = field(default_factory=dict)
    environment: list[dict[str, str]] = field(default_factory=list)  # what is set and matters
    problems: list[str] = field(default_factory=list)
    verdict: str = ""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead.")] = False,
) -> None:
    """Check this machine and installation. Status 1 if `quaver say` cannot work."""
    report = examine()
    if json:
        print_json(asdict(report))
    else:
        _print(report)
    if report.problems:
        raise typer.Exit(1)


def examine() -> Report:
    """Look at everything; what is broken is reported, never raised."""
    from quaver.core.environment import settings

    report = Report(_versions(), _cpu(), _memory())
    report.environment = [asdict(each) for each in settings()]
    report.problems = [problem for name in NEEDED if (problem := _broken(name))]
    report.extras = {extra: _extra(extra) for extra in EXTRAS}
    if not report.problems:
        from quaver.checkpoints.source import bundled

        report.cuda, report.encoders, report.hub = _cuda(), _encoders(), _hub()
        report.models = list(bundled())
        report.recipes = _recipes(report)
        if not report.models:
            report.problems.append("no bundled model; reinstall quaver, or name one by --model")
    report.verdict = _verdict(report)
    return report


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from quaver import __version__

    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "missing"
    return {"python": platform.python_version(), "quaver": __version__, "torch": torch}


def _broken(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError, ValueError) as error:
        # OSError: a shared library is missing; ValueError: an environment variable that is none
        return f"{module} does not load ({error}); install quaver again"
    return None


def _cpu() -> dict[str, Any]:
    from quaver.core.system import cpu_facts
    from quaver.precision.devices import CPU_FLAGS, DeviceKind

    facts = cpu_facts()
    useful = DeviceKind.this_cpu().flags & frozenset().union(*CPU_FLAGS.values())
    affinity = getattr(os, "sched_getaffinity", None)  # what a container may use; on Linux only
    return {
        "name": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "flags": sorted(useful),
    }


def _memory() -> dict[str, float | None]:
    from quaver.core.system import memory_facts

    facts = memory_facts()
    sizes = {"total": facts.get("MemTotal"), "free": facts.get("MemAvailable")}
    return {k: round(size / 1e9, 1) if size else None for k, size in sizes.items()}


def _cuda() -> list[dict[str, Any]]:
    import torch

    devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        {
            "name": device.name,
            "compute_capability": f"{device.major}.{device.minor}",
            "memory_gb": round(device.total_memory / 1e9, 1),
        }
        for device in devices
    ]


def _encoders() -> dict[str, bool]:
    from quaver.audio.encode import FORMATS

    return {format: _encodes(format) for format in FORMATS}


def _encodes(format: str) -> bool:
    import io

    import av
    import numpy as np

    from quaver.audio.encode import StreamWriter

    try:
        with StreamWriter(io.BytesIO(), 24000, format) as writer:
            writer.write(np.zeros(2400, np.float32))
    except (av.FFmpegError, ValueError):  # ValueError: this build of PyAV lacks the codec
        return False
    return True


def _extra(extra: str) -> str:
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    advice = [f"pip install 'quaver[{extra}]'"] if missing else []
    programs = [name for name in PROGRAMS.get(extra, ()) if shutil.which(name) is None]
    advice += [f"apt install {name}" for name in programs]
    if not advice:
        return "ready"
    return f"lacks {', '.join([*missing, *programs])}: {' and '.join(advice)}"


def _hub() -> dict[str, bool]:
    from huggingface_hub import constants, get_token

    return {"token": get_token() is not None, "offline": constants.HF_HUB_OFFLINE}


def _recipes(report: Report) -> dict[str, dict[str, str]]:
    """Recipe -> device -> how it runs there, and why not natively, and what a 3B model needs."""
    from quaver.precision import RECIPES

    devices = _devices(report)
    return {
        name: {place: _told(recipe, kind) for place, kind in devices.items()}
        for name, recipe in RECIPES.items()
    }


def _told(recipe: Recipe, device: DeviceKind) -> str:
    """How a recipe runs on a device, and what the weights of Orpheus-3B take there: its layers,
    and a table that is also its head. GPUs hold what speech needs of that."""
    from quaver.precision import RECIPES, Role
    from quaver.precision.devices import State, recipe_support

    support = recipe_support(recipe, device)
    unpacked = support.state is State.EMULATED and recipe.quantises
    layers = (RECIPES["bf16"] if unpacked else recipe).format(Role.BACKBONE).bits * LAYERS_3B
    table = SPEECH_3B if device.type == "cuda" else TABLE_3B
    size = (layers + recipe.format(Role.EMBED).bits * table) / 8e9
    return f"{support} ({size:.1f} GB for 3B)"


def _devices(report: Report) -> dict[str, DeviceKind]:
    from quaver.precision.devices import DeviceKind

    devices = {"cpu": DeviceKind.this_cpu()}
    for number, device in enumerate(report.cuda):
        major, minor = device["compute_capability"].split(".")
        devices[f"cuda:{number}"] = DeviceKind.cuda((int(major), int(minor)))
    return devices


def _verdict(report: Report) -> str:
    if report.problems:
        return f"`quaver say` cannot work: {'; '.join(report.problems)}"
    from quaver.precision.devices import default_recipe

    device, kind = list(_devices(report).items())[-1]
    return f"`quaver say` works here: {default_recipe(kind)} on {device}"


def _print(report: Report) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in _lines(report):
        table.add_row(name, escape(text))
    console = table_console()
    console.print(table)
    console.print(escape(report.verdict), soft_wrap=True)


def _lines(report: Report) -> list[tuple[str, str]]:
    cpu, memory = report.cpu, report.memory
    lines = list(report.versions.items())
    lines.append(("cpu", f"{cpu['name']}, {cpu['cores']} cores; {' '.join(cpu['flags'])}"))
    if memory["total"]:
        lines.append(("memory", f"{memory['free']} GB free of {memory['total']} GB"))
    for device in report.cuda:
        capability, size = device["compute_capability"], device["memory_gb"]
        lines.append(("cuda", f"{device['name']}, compute capability {capability}, {size} GB"))
    if not report.cuda:
        lines.append(("cuda", "no device"))
    lines += [(f"extra {extra}", state) for extra, state in report.extras.items()]
    if report.encoders:
        lines.append(("formats", ", ".join(_marked(report.encoders))))
        lines.append(("models", ", ".join(report.models) or "none bundled"))
        token = "token present" if report.hub["token"] else "no token: gated models need HF_TOKEN"
        lines.append(("hub", token + (", offline" if report.hub["offline"] else "")))
    for recipe, states in report.recipes.items():
        lines += [(f"{recipe} on {device}", state) for device, state in states.items()]
    lines += [(each["name"], _setting(each)) for each in report.environment]
    return lines


def _setting(each: dict[str, str]) -> str:
    from quaver.core.environment import Level

    mark = "warning: " if each["level"] == Level.WARNING else ""
    return f"{each['value']}: {mark}{each['effect']}"


def _marked(encoders: dict[str, bool]) -> list[str]:
    return [name if works else f"{name} (missing)" for name, works in encoders.items()]
