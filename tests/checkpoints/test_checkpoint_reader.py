"""Readers give back what was saved, and every damaged or hostile file is one CheckpointError."""

import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from quaver.checkpoints.reader import INDEX, open_tensors
from quaver.core.errors import CheckpointError

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.tensor([0.5, -1.0], dtype=torch.bfloat16),
    "scale": torch.tensor([1.5]).to(torch.float8_e4m3fn),
    "packed": torch.tensor([[1, -2]], dtype=torch.int32),
    "scalar": torch.tensor(3.0),
}


def sharded(folder: Path, tensors: dict[str, Tensor] = TENSORS) -> Path:
    weight_map = {}
    for i, (name, tensor) in enumerate(tensors.items()):
        file = f"model-{i}.safetensors"
        save_file({name: tensor}, folder / file)
        weight_map[name] = file
    return index(folder, weight_map)


def index(folder: Path, weight_map: object) -> Path:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def single(folder: Path) -> Path:
    save_file(TENSORS, folder / "model.safetensors")
    return folder


def other_name(folder: Path) -> Path:
    save_file(TENSORS, folder / "snac_24khz.safetensors")
    return folder


def one_file(folder: Path) -> Path:
    save_file(TENSORS, folder / "t3.safetensors")
    save_file({}, folder / "s3gen.safetensors")
    return folder / "t3.safetensors"


def pickled(folder: Path) -> Path:
    torch.save(TENSORS, folder / "pytorch_model.bin")
    return folder


def old_pickled(folder: Path) -> Path:
    state = {name: t for name, t in TENSORS.items() if name != "scale"}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.parametrize("layout", [sharded, single, other_name, one_file, pickled, old_pickled])
def test_gives_back_what_was_saved(tmp_path, layout):
    with open_tensors(layout(tmp_path)) as reader:
        assert reader.names() >= TENSORS.keys() - {"scale"}
        for name in reader.names():
            expected = TENSORS[name]
            assert reader.shape(name) == tuple(expected.shape)
            assert reader.dtype(name) == expected.dtype
            assert torch.equal(reader.read(name).float(), expected.float())
        with pytest.raises(KeyError):
            reader.read("absent")


def test_index_decides_between_shards_and_lets_no_tensor_vanish(tmp_path):
    save_file({"a": torch.zeros(1), "extra": torch.ones(1)}, tmp_path / "1.safetensors")
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "2.safetensors")
    index(tmp_path, {"a": "2.safetensors", "b": "2.safetensors", "extra": "1.safetensors"})
    with open_tensors(tmp_path) as reader:
        assert reader.names() == {"a", "b", "extra"}
        assert reader.read("a").item() == 1


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..\\m.safetensors", "..", ""],
)
def test_shard_names_cannot_leave_the_folder(tmp_path, shard):
    save_file(TENSORS, tmp_path / "model.safetensors")
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    save_file(TENSORS, inner / "sub" / "model.safetensors")
    index(inner, {"a.weight": shard})
    with pytest.raises(CheckpointError, match="names the shard"):
        open_tensors(inner)


def test_index_that_lies(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard model-1\.safetensors, which is missing"):
        open_tensors(tmp_path)
    index(tmp_path, {"a.weight": "model-0.safetensors", "b.weight": "model-0.safetensors"})
    with pytest.raises(CheckpointError, match=r"model-0\.safetensors does not hold.*b\.weight"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("weight_map", [None, [], "x", {"a": 1}, {"a": None}])
def test_index_of_wrong_form(tmp_path, weight_map):
    with pytest.raises(CheckpointError, match="no weight_map"):
        open_tensors(index(tmp_path, weight_map))


def test_folder_without_weights_or_with_too_many(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights; it needs model\.safetensors"):
        open_tensors(tmp_path)
    one_file(tmp_path)
    with pytest.raises(CheckpointError, match="has 2 safetensors files"):
        open_tensors(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        open_tensors(tmp_path / "absent")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", [single, pickled, old_pickled])
def test_damage_anywhere_is_a_checkpoint_error_or_harmless(tmp_path, layout):
    path = next(layout(tmp_path).iterdir())
    data = path.read_bytes()
    rng = random.Random(0)
    step = max(1, len(data) // 300)
    damaged = [(f"cut at {i}", data[:i]) for i in range(0, len(data), step)]
    for i in range(0, len(data), step):
        damaged.append((f"byte {i}", data[:i] + bytes([rng.randrange(256)]) + data[i + 1 :]))
    for what, content in damaged:
        path.unlink()  # earlier readers may have the old file mapped
        path.write_bytes(content)
        try:
            with open_tensors(path) as reader:
                for name in reader.names():
                    reader.shape(name), reader.dtype(name), reader.read(name)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error), what


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 100, -1])
def test_truncated_safetensors_are_always_refused(tmp_path, cut):
    path = single(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_tensors(tmp_path)


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_code_in_a_pickle_never_runs(tmp_path, form):
    victim, path = tmp_path / "victim", tmp_path / "pytorch_model.bin"
    payload = {"a": torch.zeros(1), "b": Malicious(victim)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="never runs") as caught:
        open_tensors(tmp_path)
    assert not victim.exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    "state",
    [
        [torch.zeros(1)],
        {"state_dict": {"a": torch.zeros(1)}},
        {"a": torch.zeros(1), "epoch": 3},
        {1: torch.zeros(1)},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.zeros(1, device="meta")},
    ],
)
def test_pickle_must_be_a_flat_dictionary_of_dense_tensors(tmp_path, state):
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="flat dictionary"):
        open_tensors(tmp_path)
