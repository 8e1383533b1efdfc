"""What a language model needs beside it: codec, tokenizer, sampling defaults, a device."""

from __future__ import annotations

import ctypes
import logging
import sys
from dataclasses import fields
from pathlib import Path

import torch
from tokenizers import Tokenizer

from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.load import load_strict
from quaver.checkpoints.names import weight_norm_source
from quaver.checkpoints.reader import open_tensors
from quaver.codecs.snac import Snac, SnacConfig
from quaver.core.errors import CheckpointError, UnsupportedError
from quaver.core.types import SamplingParams

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
    config = SnacConfig.from_dict(read_json(folder / "config.json", "codec configuration"))
    with torch.device("meta"):
        snac = Snac(config)
    with open_tensors(folder) as reader:
        names = reader.names()
        targets = [name for name, _ in snac.named_parameters()]
        load_strict(snac, reader, [weight_norm_source(target, names) for target in targets])
    return snac.to(device).eval()


def read_tokenizer(path: Path) -> Tokenizer:
    """A `tokenizer.json`."""
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}; a checkpoint needs its tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from None


def read_sampling(folder: Path) -> SamplingParams:
    """Sampling defaults of a checkpoint: what its `generation_config.json` sets, else Orpheus's."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return SamplingParams()
    values = read_json(path, "generation configuration")
    known = {f.name for f in fields(SamplingParams)}
    return SamplingParams().override({k: v for k, v in values.items() if k in known})
