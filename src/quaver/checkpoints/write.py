"""Writing model folders that vLLM and transformers read: config.json, safetensors, an index.

Tensors may come as a stream and are written a shard at a time, so that quantising a model needs
memory for one shard beside it. A folder appears under its name only when all of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from quaver.checkpoints.atomic import new_file, new_folder
from quaver.checkpoints.jsonfile import write_json
from quaver.checkpoints.names import Source
from quaver.checkpoints.reader import INDEX, SINGLE

Tensors = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


def write_checkpoint(
    folder: Path,
    tensors: Tensors,
    *,
    config: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    extra_files: Mapping[str, bytes] | Callable[[], Mapping[str, bytes]] = NO_FILES,
    max_shard_bytes: int = 5 * 2**30,
) -> None:
    """Write a model folder; `extra_files` are paths in it, `tokenizer.json` or `codec/config.json`.

    Both may be functions, called when all tensors are written: a stream of them decides as it goes.
    A shard holds `max_shard_bytes` at most unless one tensor alone is larger. One shard is written
    as `model.safetensors`, more with Hugging Face's numbered names and index.
    Raises CheckpointError if `folder` is there and not empty or cannot be written, and leaves
    nothing then; ValueError for a tensor name given twice or an extra file outside the folder.
    """
    with new_folder(folder) as part:
        _write_shards(part, tensors, max_shard_bytes)
        write_json(part / "config.json", config() if callable(config) else config)
        files = extra_files() if callable(extra_files) else extra_files
        for name, data in files.items():
            file = part / name
            if ".." in PurePosixPath(name).parts or not file.is_relative_to(part) or file.exists():
                raise ValueError(f"{name!r} is outside the folder or written already")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file, replacing `path` at once. Raises CheckpointError if it cannot."""
    with new_file(path) as part:
        # views and tied weights share memory, which the format does not allow: copy each
        owned = {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        save_file(owned, part, metadata={"format": "pt"})


def named_tensors(module: nn.Module, sources: Iterable[Source]) -> Iterator[tuple[str, Tensor]]:
    """The weights of `module` under their names in a file: what `load_strict` reads, reversed."""
    weights = module.state_dict()
    for source in sources:
        yield from source.split(weights[source.target])


def _write_shards(folder: Path, tensors: Tensors, limit: int) -> None:
    """How many shards there are is known at the end only, so they get their names there."""
    shards: list[tuple[Path, list[str]]] = []
    seen: set[str] = set()
    total = 0
    filled = _fill(tensors.items() if isinstance(tensors, Mapping) else tensors, limit)
    while (shard := next(filled, None)) is not None:
        if twice := seen & shard.keys():
            raise ValueError(f"tensors given twice: {sorted(twice)}")
        seen |= shard.keys()
        total += sum(tensor.nbytes for tensor in shard.values())
        file = folder / f"{len(shards)}.safetensors"
        write_safetensors(file, shard)
        shards.append((file, list(shard)))
        del shard  # before the next one is filled
    if len(shards) == 1:
        shards[0][0].rename(folder / SINGLE)
        return
    weight_map: dict[str, str] = {}
    for i, (file, names) in enumerate(shards, 1):
        final = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        file.rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _fill(tensors: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[dict[str, Tensor]]:
    """Consecutive tensors in groups of `limit` bytes; at least one group."""
    shard: dict[str, Tensor] = {}
    room = limit
    for name, tensor in tensors:
        if name in shard:
            raise ValueError(f"tensor given twice: {name}")
        if shard and tensor.nbytes > room:
            yield shard
            shard, room = {}, limit
        shard[name] = tensor
        room -= tensor.nbytes
    yield shard
