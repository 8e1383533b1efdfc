"""Tensors of a model folder, by name, each read when it is asked for.

Shards, a single safetensors file and an old pickled `pytorch_model.bin` look alike from outside.
Files are taken for hostile: nothing in them is ever executed, shard names cannot leave the folder,
and whatever is wrong with one is a CheckpointError that names it.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from quaver.checkpoints.atomic import one_line
from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.recognise import ADAPTERS, folder_advice, pointer
from quaver.checkpoints.regular import check_regular
from quaver.core.errors import CheckpointError
from quaver.core.section import shown

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
SUFFIX = ".safetensors"
MAX_SHARDS = 10_000
MAX_SHARD_NAME = 200  # characters; file systems take 255 bytes

_DTYPES = {  # https://github.com/huggingface/safetensors#format
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# What torch.load was seen to raise for damaged files: a cut pickle can fail at any of its opcodes.
_DAMAGE = (
    struct.error,
    zipfile.BadZipFile,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class TensorReader(ABC):
    """Named tensors on the CPU. A context manager; a name that is not there is a KeyError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> frozenset[str]: ...

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]: ...

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype: ...

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """The tensor. It may lie in the mapped file: copy it before writing to it."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_tensors(path: Path) -> TensorReader:
    """Open the weights of a folder, or one file of weights.

    In a folder the first of these is taken, in transformers' order: `model.safetensors`,
    `model.safetensors.index.json` and its shards, the only `*.safetensors`, `pytorch_model.bin`,
    `pytorch_model.bin.index.json` and its shards.
    Raises CheckpointError if there is none, if it is ambiguous, or if a file is damaged or no
    regular file.
    """
    if not path.is_dir():
        return _open_file(path)
    for name, opener in (
        (SINGLE, _open_file),
        (INDEX, _open_index),
        (None, _open_file),
        (PICKLE, _open_file),
        (PICKLE_INDEX, _open_pickle_index),
    ):
        file = _only(path) if name is None else path / name
        if file is not None and file.exists():
            check_regular(file)
            return opener(file)
    raise CheckpointError(
        folder_advice(path)
        or f"{path} has no weights; it needs {SINGLE}, or shards with {INDEX}, or {PICKLE}"
    )


def _open_file(file: Path) -> TensorReader:
    check_regular(file)
    return _SafetensorsReader(file, [file]) if file.suffix == SUFFIX else _PickleReader(file)


def _only(folder: Path) -> Path | None:
    """The only file of tensors; adapters, which hold changes to a model, are none."""
    found = [file for file in sorted(folder.glob(f"*{SUFFIX}")) if file.name not in ADAPTERS]
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:8])
        raise CheckpointError(
            f"{folder} has {len(found)} safetensors files ({names}) and no {INDEX} that says which "
            "belong together; download the index too"
        )
    return found[0] if found else None


def _open_index(index: Path) -> TensorReader:
    owners = _owners(index, SUFFIX)
    return _SafetensorsReader(index, sorted(set(owners.values())), owners)


def _open_pickle_index(index: Path) -> TensorReader:
    return _PickleReader(index, _owners(index, ".bin"))


def _owners(index: Path, suffix: str) -> dict[str, Path]:
    """The file of each tensor that an index lists."""
    listed = read_json(index, "the index of shards").get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(s, str) for s in listed.values()):
        raise CheckpointError(f"{index} has no weight_map of tensor names to file names")
    shards = sorted(set(listed.values()))
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"{index} names {len(shards):,} shards; at most {MAX_SHARDS:,}")
    for shard in shards:
        # a name with a folder, or a drive, could reach any file of the machine
        if not shard.endswith(suffix) or set(shard) & set("/\\:\0"):
            raise CheckpointError(
                f"{index} names the shard {shown(shard)}; allowed are *{suffix} files of its folder"
            )
        if len(shard) > MAX_SHARD_NAME or not (index.parent / shard).exists():
            raise CheckpointError(
                f"{index} names the shard {shard[:MAX_SHARD_NAME]}, which is missing; download the "
                "folder again"
            )
        check_regular(index.parent / shard)
    return {name: index.parent / shard for name, shard in listed.items()}


class _SafetensorsReader(TensorReader):
    """One or more safetensors files; where two hold a name, `owners` (of the index) decides."""

    def __init__(
        self, path: Path, files: Iterable[Path], owners: Mapping[str, Path] | None = None
    ) -> None:
        super().__init__(path)
        self._stack = ExitStack()
        self._owners = dict(owners or {})
        self._open: dict[Path, Any] = {}  # of safe_open, whose methods have no types
        try:
            for file in files:
                self._add(file)
        except CheckpointError:
            self.close()
            raise

    def _add(self, file: Path) -> None:
        try:
            shard = self._stack.enter_context(safe_open(file, framework="pt", device="cpu"))
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error
        self._open[file] = shard
        held = frozenset(shard.keys())
        absent = sorted(n for n, owner in self._owners.items() if owner == file and n not in held)
        if absent:
            raise _not_held(self.path, file, absent)
        for name in held:
            self._owners.setdefault(name, file)

    def names(self) -> frozenset[str]:
        return frozenset(self._owners)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        kind = self._slice(name).get_dtype()
        if kind not in _DTYPES:
            raise CheckpointError(
                f"{name} in {self._owners[name]} has dtype {kind}; allowed are {', '.join(_DTYPES)}"
            )
        return _DTYPES[kind]

    def read(self, name: str) -> Tensor:
        file = self._owners[name]
        try:
            # opened anew, so that pages of the file leave memory with the tensor
            with safe_open(file, framework="pt", device="cpu") as shard:
                tensor: Tensor = shard.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error
        return tensor

    def close(self) -> None:
        self._stack.close()

    def _slice(self, name: str) -> Any:
        file = self._owners[name]
        try:
            return self._open[file].get_slice(name)
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error


class _PickleReader(TensorReader):
    """State dicts that torch.save wrote, mapped, and unpickled by torch's tensors-only reader; of
    several, `owners` (of the index) say which holds a name."""

    def __init__(self, path: Path, owners: Mapping[str, Path] | None = None) -> None:
        super().__init__(path)
        if owners is None:
            self._tensors = _load_pickle(path)
            return
        self._tensors = {}
        for file in sorted(set(owners.values())):
            held = _load_pickle(file)
            listed = [name for name, owner in owners.items() if owner == file]
            if absent := sorted(set(listed) - held.keys()):
                raise _not_held(path, file, absent)
            self._tensors |= {name: t for name, t in held.items() if owners.get(name, file) == file}

    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str) -> Tensor:
        return self._tensors[name]

    def close(self) -> None:
        self._tensors = {}


def _load_pickle(path: Path) -> dict[str, Tensor]:
    check_regular(path)
    try:
        # torch warns of archives of TorchScript, and advises to switch its protection off
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # only the zip layout, torch's since 1.6, can be mapped
            mmap = zipfile.is_zipfile(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch's own words advise to switch its protection off
        raise CheckpointError(
            f"{path} is damaged, or holds code besides tensors, which Quaver never runs; "
            "download it again, or get the model as safetensors"
        ) from error
    except OSError as error:
        raise _damaged(path, error) from error
    except _DAMAGE:
        # torch's own words advise the same, or are of its insides
        raise _unreadable(path, "it is no file of tensors that torch.save wrote") from None
    if not isinstance(state, dict) or not all(_is_plain(*item) for item in state.items()):
        raise CheckpointError(
            f"{path} must hold a flat dictionary of names to dense tensors and nothing else; "
            "get the model as safetensors"
        )
    return dict(state)


def _is_plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _not_held(index: Path, file: Path, absent: Sequence[str]) -> CheckpointError:
    return CheckpointError(
        f"{index} lists {len(absent)} tensors that {file.name} does not hold, "
        f"the first is {absent[0][:200]}; download both again"
    )


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return _unreadable(path, one_line(error))


def _unreadable(path: Path, why: str) -> CheckpointError:
    if pointer(path):
        return CheckpointError(
            f"{path} is a pointer of Git LFS, not the weights; run `git lfs pull` in its folder"
        )
    return CheckpointError(
        f"cannot read {path}: {why}; it is missing, cut short or damaged, download it again"
    )
