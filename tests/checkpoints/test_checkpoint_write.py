"""What is written is read back, by others too, and what fails leaves nothing behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from quaver.checkpoints import write
from quaver.checkpoints.jsonfile import MAX_JSON_BYTES, read_json, write_json
from quaver.checkpoints.load import load_strict
from quaver.checkpoints.names import Source
from quaver.checkpoints.reader import INDEX, open_tensors
from quaver.checkpoints.write import named_tensors, write_checkpoint, write_safetensors
from quaver.core.errors import CheckpointError

CONFIG = {"model_type": "llama", "name": "ünï"}


def tensors() -> dict[str, torch.Tensor]:
    return {f"layer.{i}": torch.full((4, 4), float(i)) for i in range(5)}


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    ("limit", "files"),
    [(2**20, 1), (320, 1), (319, 2), (128, 3), (64, 5), (1, 5)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_round_trip_whole_and_sharded(tmp_path, limit, files, stream):
    source = iter(tensors().items()) if stream else tensors()
    write_checkpoint(tmp_path / "m", source, config=CONFIG, max_shard_bytes=limit)
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(shards) == files
    if files > 1:
        assert shards[0].name == f"model-00001-of-{files:05d}.safetensors"
        assert json.loads((tmp_path / "m" / INDEX).read_text())["metadata"] == {"total_size": 320}
    for shard in shards:
        with safe_open(shard, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    with open_tensors(tmp_path / "m") as reader:
        assert reader.names() == tensors().keys()
        assert all(torch.equal(reader.read(n), t) for n, t in tensors().items())
    assert read_json(tmp_path / "m" / "config.json", "config") == CONFIG
    assert everything(tmp_path)[0] == "m", "no temporary folder is left"


@pytest.mark.slow
def test_transformers_reads_what_we_write(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    ours = transformers.LlamaForCausalLM(config)
    folder = tmp_path / "m"
    write_checkpoint(folder, ours.state_dict(), config=config.to_dict(), max_shard_bytes=4000)
    theirs, info = transformers.LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name])


def test_fused_weights_are_written_apart_and_load_again(tmp_path):
    sources = (
        Source("0.weight", ("q.weight", "k.weight"), "concat", (4, 2)),
        Source("0.bias", ("bias",)),
    )
    model, again = nn.Sequential(nn.Linear(3, 6)), nn.Sequential(nn.Linear(3, 6))
    write_checkpoint(tmp_path / "m", named_tensors(model, sources), config={})
    with open_tensors(tmp_path / "m") as reader:
        assert reader.shape("q.weight") == (4, 3)
        load_strict(again, reader, sources)
    assert torch.equal(model[0].weight, again[0].weight)


def test_views_tied_and_strided_tensors_are_copied(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    views = {"a": base, "b": base, "t": base.T, "row": base[1], "g": nn.Parameter(base)}
    write_safetensors(tmp_path / "v.safetensors", views)
    with open_tensors(tmp_path / "v.safetensors") as reader:
        assert all(torch.equal(reader.read(n), t) for n, t in views.items())
        assert reader.names() == views.keys()


def test_extra_files_and_an_empty_target(tmp_path):
    target = tmp_path / "deep" / "m"
    target.mkdir(parents=True)
    extra = {"tokenizer.json": b"{}", "codec/config.json": b"1"}
    write_checkpoint(target, tensors(), config={}, extra_files=extra)
    assert (target / "codec" / "config.json").read_bytes() == b"1"
    assert (target / "tokenizer.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "config.json"])
def test_extra_files_stay_inside_and_replace_nothing(tmp_path, name):
    with pytest.raises(ValueError, match="outside the folder"):
        write_checkpoint(tmp_path / "m", tensors(), config={}, extra_files={name: b""})
    assert everything(tmp_path) == []


@pytest.mark.parametrize("limit", [1, 2**20])
def test_a_name_given_twice_is_a_bug(tmp_path, limit):
    pairs = [("a", torch.zeros(1)), ("b", torch.zeros(1)), ("a", torch.zeros(1))]
    with pytest.raises(ValueError, match="twice"):
        write_checkpoint(tmp_path / "m", pairs, config={}, max_shard_bytes=limit)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("occupied", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(tmp_path, occupied):
    target = tmp_path / "m"
    if occupied == "folder":
        target.mkdir()
        (target / "precious").touch()
    elif occupied == "file":
        target.touch()
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = everything(tmp_path)
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(target, tensors(), config={})
    assert everything(tmp_path) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_midway_leaves_nothing(tmp_path, error):
    def failing():
        yield from tensors().items()
        raise error

    with pytest.raises(error):
        write_checkpoint(tmp_path / "m", failing(), config={}, max_shard_bytes=64)
    assert everything(tmp_path) == []


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    def full(shard, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write, "save_file", full)
    with pytest.raises(CheckpointError, match=r"m.*: No space left on device.*free space"):
        write_checkpoint(tmp_path / "m", tensors(), config={})
    assert everything(tmp_path) == []


def test_a_killed_writer_leaves_no_checkpoint(tmp_path):
    code = (
        "import os, sys, torch; from pathlib import Path\n"
        "from quaver.checkpoints.write import write_checkpoint\n"
        "def stream():\n"
        "    for i in range(3): yield str(i), torch.zeros(8)\n"
        "    os.kill(os.getpid(), 9)\n"
        "write_checkpoint(Path(sys.argv[1]), stream(), config={}, max_shard_bytes=1)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=False)
    assert run.returncode == -9
    assert not (tmp_path / "m").exists()
    write_checkpoint(tmp_path / "m", tensors(), config={})


def test_an_unwritable_place_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        write_checkpoint(tmp_path / "file" / "m", tensors(), config={})
    with pytest.raises(CheckpointError, match="cannot write"):
        write_safetensors(tmp_path / ("x" * 300), tensors())


def test_replacing_a_file_fails_whole(tmp_path):
    path = tmp_path / "quaver.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert read_json(path, "manifest") == {"a": 1}
    write_json(path, {"a": 2})
    assert read_json(path, "manifest") == {"a": 2}
    assert everything(tmp_path) == ["quaver.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"a": ', "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[1]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (b" " * (MAX_JSON_BYTES + 1), "above"),
    ],
    ids=["empty", "cut", "no text", "deep", "long number", "list", "null", "large"],
)
def test_bad_json_is_one_line_that_names_the_file(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_json(path, "the model's config")
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "the model's config" in message


def test_missing_json(tmp_path):
    with pytest.raises(CheckpointError, match="the config is missing"):
        read_json(tmp_path / "config.json", "the config")
    with pytest.raises(CheckpointError, match="is a folder, and must be a file"):
        read_json(tmp_path, "the config")


@given(content=st.binary(max_size=64))
def test_any_bytes_are_an_object_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("j") / "x.json"
    path.write_bytes(content)
    try:
        assert isinstance(read_json(path, "x"), dict)
    except CheckpointError as error:
        assert "\n" not in str(error)
