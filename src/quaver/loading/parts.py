"""What a language model needs beside it: codec, tokenizer, sampling defaults, a device."""

from __future__ import annotations

import ctypes
import logging
import sys
from pathlib import Path

import torch

from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.load import load_strict
from quaver.checkpoints.names import weight_norm_source
from quaver.checkpoints.reader import open_tensors
from quaver.checkpoints.source import CONFIG
from quaver.codecs.snac import Snac, SnacConfig
from quaver.core.errors import UnsupportedError
from quaver.core.section import Section
from quaver.core.types import SAMPLING_RANGES, SamplingParams

log = logging.getLogger("quaver.loading")

SMALL_MODEL = 100_000_000  # parameters
STACK_SIZE, STACK_BYTES = 0, 512  # CU_LIMIT_STACK_SIZE, and what it is set to


def find_device(name: str | None) -> torch.device:
    """The device called `name`; None takes a GPU where there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UnsupportedError(f"unknown device '{name}'; allowed are cpu, cuda and cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise UnsupportedError(f"device '{name}' asked for, but there is no CUDA device; use cpu")
    return torch.device(name)


def use_little_stack(device: torch.device) -> None:
    """Let CUDA keep half a kilobyte of stack for each thread that a GPU could run, not a whole one.

    That is memory which nobody else gets: 138 MB on an H200. This is the process's setting too, so
    a program that runs others' kernels, which may call deeper, leaves it alone.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return
    torch.cuda.init()
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    with torch.cuda.device(device):
        torch.cuda.synchronize()  # which gives the thread a context
        if driver.cuCtxSetLimit(STACK_SIZE, ctypes.c_size_t(STACK_BYTES)):
            log.info("the driver keeps its stack as it is")


def load_codec(folder: Path, device: torch.device) -> Snac:
    """A SNAC from its folder, in fp32."""
    file = folder / CONFIG
    config = SnacConfig.from_dict(read_json(file, "codec configuration"), str(file))
    with torch.device("meta"):
        snac = Snac(config)
    with open_tensors(folder) as reader:
        names = reader.names()
        targets = [name for name, _ in snac.named_parameters()]
        load_strict(snac, reader, [weight_norm_source(target, names) for target in targets])
    return snac.to(device).eval()


def read_sampling(folder: Path) -> SamplingParams:
    """Sampling defaults of a checkpoint: what its `generation_config.json` sets, else Orpheus's.

    `"do_sample": false` is greedy, whatever temperature stands beside it, as in transformers.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return SamplingParams()
    section = Section(read_json(path, "generation configuration"), str(path))
    values: dict[str, float | None] = {}
    for name, allowed in SAMPLING_RANGES.items():
        if not section.has(name):
            continue
        given = section.values[name]
        if allowed.whole and isinstance(given, float) and given.is_integer():
            given = int(given)  # JSON has one kind of number
        if not allowed.holds(given):
            raise section.error(name, given, allowed.told)
        values[name] = given if allowed.whole else float(given)
    if not section.flag("do_sample", True):
        values["temperature"] = 0.0
    return SamplingParams().override(values)
