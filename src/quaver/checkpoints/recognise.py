"""What a folder or a file is that is no checkpoint of ours, and what to do with it.

Fine-tuners, converters and trainers leave many kinds of folders. Each that is known gets an answer
of its own, in one line; only names and small files are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from quaver.checkpoints.jsonfile import read_json
from quaver.core.errors import CheckpointError
from quaver.core.section import shown

ADAPTER_CONFIG = "adapter_config.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
POINTER = b"version https://git-lfs"
MAX_LISTED = 5000  # names of a folder that are looked at
_GET_ORIGINAL = "take the original model with its *.safetensors"
_CONVERTED = {
    ".gguf": "GGUF is not read",
    ".ggml": "GGML is not read",
    ".onnx": "ONNX is not read",
    ".npz": "MLX's .npz weights are not read",
    ".nemo": "NeMo's archives are not read",
    ".engine": "TensorRT's engines are not read",
    ".mlpackage": "Core ML's packages are not read",
    ".tflite": "TensorFlow Lite's models are not read",
    ".h5": "TensorFlow's weights are not read",
    ".msgpack": "Flax's weights are not read",
    ".pth": "original weights of Llama (.pth) are not read",
    ".ckpt": "Lightning's checkpoints are not read",
    ".zip": "archives are not read: unpack it",
    ".tar": "archives are not read: unpack it",
    ".gz": "archives are not read: unpack it",
}
_QUANTIZE = "and make 8 or 4 bits of it with: quaver quantize"
_STATE = (
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
)


def folder_advice(folder: Path) -> str | None:
    """What a folder without a model's files is, and what to do; None if that is not known."""
    names = _names(folder)
    if (folder / ADAPTER_CONFIG).is_file() or any(name in names for name in ADAPTERS):
        return _adapter(folder)
    if (snapshot := _snapshot(folder, names)) is not None:
        return snapshot
    if runs := _numbered(names, "checkpoint-"):
        return (
            f"{folder} is the output of a training run: give one of the checkpoints in it, such as "
            f"{folder / runs[-1]}"
        )
    if any(name.endswith(".distcp") for name in names) or any(
        re.fullmatch(r"global_step\d+|pytorch_model_fsdp_\d+", name) for name in names
    ):
        return (
            f"{folder} holds the shards of a training run (DeepSpeed or FSDP), which are not read: "
            "join them first, with zero_to_fp32.py or `accelerate merge-weights`"
        )
    if (converted := _converted(folder, names)) is not None:
        return converted
    return _state(folder, names) or _partial(folder, names)


def _state(folder: Path, names: list[str]) -> str | None:
    """Of what a trainer left beside its models."""
    if any(name in names for name in _STATE):
        return (
            f"{folder} holds the state of a trainer and no model: save the model beside it "
            "(trainer.save_model), or give another checkpoint of the run"
        )
    return None


def _converted(folder: Path, names: list[str]) -> str | None:
    """Of a model in another program's layout."""
    for name in names:
        if kind := _CONVERTED.get(Path(name).suffix.lower()):
            return f"{folder} has {name}: {kind}; {_GET_ORIGINAL}, {_QUANTIZE}"
    if "onnx" in names:
        return f"{folder} has a folder onnx: ONNX is not read; {_GET_ORIGINAL}, {_QUANTIZE}"
    return None


def file_advice(file: Path) -> str:
    """What to give instead of one file."""
    kind = _CONVERTED.get(file.suffix.lower())
    if kind is not None:
        return f"{kind}; {_GET_ORIGINAL}, {_QUANTIZE}"
    return "give the folder that holds config.json"


def tokenizer_advice(folder: Path) -> str:
    """What to do where there is no tokenizer.json."""
    names = _names(folder)
    slow = [n for n in ("tokenizer.model", "vocab.json", "merges.txt") if n in names]
    if slow:
        return (
            f"it has {slow[0]}, the old form: in Python, transformers.AutoTokenizer."
            "from_pretrained(FOLDER).save_pretrained(FOLDER) writes the new one"
        )
    return "a checkpoint needs one: copy it from the model that this one was trained from"


def unused(folder: Path) -> tuple[str, ...]:
    """Notes about files beside a model's own that its author may expect to count."""
    notes = []
    if any((folder / name).is_file() for name in ADAPTERS):
        notes.append(
            f"{folder} has an adapter (LoRA) beside the model, which is not used; to hear it, "
            "merge it first: in Python, peft's merge_and_unload(), then save_pretrained()"
        )
    return tuple(notes)


def pointer(file: Path) -> bool:
    """Whether a file is Git LFS's pointer to one that was not downloaded."""
    try:
        if not file.is_file() or file.stat().st_size > 1024:
            return False
        with file.open("rb") as opened:
            return opened.read(len(POINTER)) == POINTER
    except OSError:
        return False


def _adapter(folder: Path) -> str:
    base = "its base model"
    try:
        named = read_json(folder / ADAPTER_CONFIG, "adapter configuration")
        if isinstance(found := named.get("base_model_name_or_path"), str):
            base = f"its base model, {shown(found)}"
    except CheckpointError:
        pass  # the adapter is all the same what it is
    return (
        f"{folder} is an adapter (LoRA) and no model: merge it into {base} first: in Python, "
        "peft's merge_and_unload(), then save_pretrained() of model and tokenizer"
    )


def _snapshot(folder: Path, names: Sequence[str]) -> str | None:
    """The answer to a folder of the hub's cache, models--org--name."""
    if "snapshots" not in names or not folder.name.startswith("models--"):
        return None
    repo = "/".join(folder.name.split("--")[1:])
    return f"{folder} is the hub's cache of {repo}; give {repo}, or a folder in its snapshots"


def _numbered(names: Iterable[str], prefix: str) -> list[str]:
    found = [n for n in names if re.fullmatch(rf"{prefix}\d{{1,12}}", n)]
    return sorted(found, key=lambda name: int(name.removeprefix(prefix)))


def _partial(folder: Path, names: Sequence[str]) -> str | None:
    endings = (".incomplete", ".part", ".crdownload", ".aria2", ".download")
    if cut := next((name for name in names if name.endswith(endings)), None):
        return f"{folder} has {cut}: its download has not ended; go on with it"
    if any(name.endswith(".safetensors") for name in names) and "config.json" not in names:
        return (
            f"{folder} has weights and no config.json; a model folder needs config.json: copy it "
            "and tokenizer.json from the model that this one was trained from"
        )
    return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(
            path.name for path, _ in zip(folder.iterdir(), range(MAX_LISTED), strict=False)
        )
    except OSError:
        return []
