"""Hostile checkpoints at full scale: each file of a model folder changed at random, and read.

`python benchmarks/fuzz_checkpoints.py --cases 20000 --seed 1` prints, for each kind of file, how
many changed files were read and how many were refused in one line. Anything else is a bug: it is
printed with its case's number, and the exit status is 1. Tests run the same at small scale.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from quaver.bench.shapes import ORPHEUS_3B, SNAC_24KHZ
from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.packed import QuantisedReader, tensors
from quaver.checkpoints.reader import INDEX, SINGLE, open_tensors
from quaver.checkpoints.schemes import Schemes, quantization_config, stored_config
from quaver.checkpoints.tokenizer import check
from quaver.codecs.snac import Snac, SnacConfig
from quaver.core.errors import QuaverError
from quaver.core.panics import is_panic
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.tokenizer import byte_tokenizer
from quaver.loading.parts import read_sampling
from quaver.precision import Format, find_recipe
from quaver.quant.apply import LAYERS, dequantise

SLOW_SECONDS = 20.0  # CPU time of one case
LAYER = "model.layers.0.mlp.down_proj"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 8.0, 0.5, -0.0, 1e300, 10**12, 10**400, 2**31, 2**63),
    *(float("nan"), float("inf"), float("-inf")),
    *("", "a", "8", "0.6", "elise", "../x", "/etc", "\x1b[2J", "\ud800", "x" * 5000, "re:(a+)+$"),
    *([], [[]], {}, {"a": {}}, [1, "a"], ["a", "a"], [0] * 1000, {"type": "Sequence"}, [None]),
)
TEXT = "Well, hello there! It costs 5 euros. <laugh> naïve café 漢字 🎉"
QUANTISED = (Format.FP8, Format.FP8_BLOCK, Format.INT8, Format.INT4, Format.NF4)
MODEL = {**ORPHEUS_3B, "num_hidden_layers": 2, "model_type": "llama"}
SPEECH = {
    **{"begin_of_text": 128000, "end_of_text": 128009, "custom_token_base": 128256},
    **{"codebook_size": 4096, "voices": ["ada"], "codec": "codec", "comfortable_chars": 200},
}
CUT = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
GENERATION = {
    **{"do_sample": True, "temperature": 0.6, "top_k": 50, "top_p": 0.9, "min_p": 0.0},
    **{"repetition_penalty": 1.1, "repetition_window": 0, "eos_token_id": [1, 2]},
}


def mutate(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one to three places changed, taken away or doubled."""
    changed = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        owners = [owner for owner in _owners(changed) if owner]
        if not owners:
            return rng.choice(VALUES)
        owner = rng.choice(owners)
        key = rng.choice([*owner] if isinstance(owner, dict) else range(len(owner)))
        kind = rng.random()
        if kind < 0.1:
            del owner[key]
        elif kind < 0.15 and isinstance(owner, dict):
            owner[rng.choice(("x", "\x1b]0;", "voice"))] = rng.choice(VALUES)
        elif kind < 0.2 and isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        elif kind < 0.3 and isinstance(owner[key], int | float):
            owner[key] = owner[key] * rng.choice((-1, 2, 3, 1000, 10**9)) + rng.choice((0, 1))
        else:
            owner[key] = copy.deepcopy(rng.choice(VALUES))
    return changed


def _owners(value: Any, depth: int = 0) -> Iterator[Any]:
    """Objects and lists, the whole first, so that a large one is chosen no more often."""
    if depth > 6 or not isinstance(value, dict | list):
        return
    yield value
    for inner in [*(value.values() if isinstance(value, dict) else value)][:60]:
        yield from _owners(inner, depth + 1)


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def bend(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, cut, or with something in between."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.choice((b"[" * 5000, b"1e999", b"\0", b"\xff", b"{}")) + data[at:]
    return data[:at] + data[at + rng.randrange(1, 50) :]


def config(folder: Path, rng: random.Random) -> None:
    """`config.json`: read, and a model of it built without memory."""
    layers = {f"model.layers.{n}.mlp.down_proj": Format.INT8 for n in range(2)}
    quantised = {"quantization_config": quantization_config(layers, Format.FP8)}
    values = MODEL | ({"orpheus": SPEECH} if rng.random() < 0.7 else {})
    values |= quantised if rng.random() < 0.4 else {}
    (folder / "config.json").write_bytes(dump(mutate(values, rng)))
    read = read_json(folder / "config.json", "model configuration")
    shape = OrpheusConfig.from_dict(read, "", "config.json").shortened(64)
    if (stored := stored_config(read)) is not None:
        schemes = Schemes(stored)
        for layer in (*layers, "lm_head"):
            schemes.scheme(layer, frozenset())
    with torch.device("meta"):
        Orpheus(shape, find_recipe("bf16"))


def codec(folder: Path, rng: random.Random) -> None:
    """`codec/config.json`."""
    (folder / "config.json").write_bytes(dump(mutate(SNAC_24KHZ, rng)))
    read = read_json(folder / "config.json", "codec configuration")
    with torch.device("meta"):
        Snac(SnacConfig.from_dict(read))


def generation(folder: Path, rng: random.Random) -> None:
    """`generation_config.json`."""
    (folder / "generation_config.json").write_bytes(dump(mutate(GENERATION, rng)))
    read_sampling(folder)


def raw(folder: Path, rng: random.Random) -> None:
    """JSON whose bytes are damaged."""
    (folder / "config.json").write_bytes(bend(dump(MODEL | {"orpheus": SPEECH}), rng))
    OrpheusConfig.from_dict(read_json(folder / "config.json", "model configuration"))


def index(folder: Path, rng: random.Random) -> None:
    """An index of shards."""
    for name in ("1", "2"):
        (folder / f"{name}.safetensors").write_bytes(save({name: torch.zeros(2)}))
    listed = {"metadata": {}, "weight_map": {"1": "1.safetensors", "2": "2.safetensors"}}
    (folder / INDEX).write_bytes(dump(mutate(listed, rng)))
    _read_all(folder)


def header(folder: Path, rng: random.Random) -> None:
    """A safetensors file whose header lies, or whose bytes are damaged."""
    data = save({"a.weight": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.bfloat16)})
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.7:
        changed = dump(mutate(json.loads(data[8 : 8 + length]), rng))
        data = struct.pack("<Q", len(changed)) + changed + data[8 + length :]
    else:
        data = bend(data, rng)
    (folder / SINGLE).write_bytes(data)
    _read_all(folder)


def _read_all(folder: Path) -> None:
    with open_tensors(folder) as reader:
        for name in reader.names():
            reader.shape(name), reader.dtype(name), reader.read(name)


def packed(folder: Path, rng: random.Random) -> None:
    """Tensors of a quantised layer, one of them of another shape or dtype."""
    chosen = rng.choice(QUANTISED)
    weight = LAYERS[chosen].quantise(torch.randn(128, 256))
    stored = {name: tensor.clone() for name, tensor in tensors(LAYER, weight)}
    name = rng.choice(sorted(stored))
    shape = rng.choice(((), (0,), (1,), (3,), (0, 4), (128,), (128, 1), (2, 2, 2), (1, 256)))
    kind = rng.choice((stored[name].dtype, torch.float32, torch.int64, torch.uint8))
    stored[name] = (torch.ones(shape) * rng.choice((0.0, 1.0, 3.0))).to(kind)
    (folder / SINGLE).write_bytes(save(stored))
    settings = quantization_config({LAYER: chosen}, Format.BF16)
    with QuantisedReader(open_tensors(folder), [LAYER], Schemes(settings), dequantise) as reader:
        reader.shape(f"{LAYER}.weight")
        reader.read(f"{LAYER}.weight")


def tokenizer(folder: Path, rng: random.Random) -> None:
    """`tokenizer.json`: checked, opened, and given a text."""
    values = json.loads(byte_tokenizer(4, 7)[0].to_str())
    values["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
            {"type": "Prepend", "prepend": "_"},
        ],
    }
    split = {"type": "Split", "pattern": {"Regex": r" ?\p{L}+|\s+"}, "behavior": "Isolated"}
    values["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{**split, "invert": False}, values["pre_tokenizer"]],
    }
    values["truncation"] = rng.choice((None, dict(CUT)))
    vocabulary = values["model"].pop("vocab")  # large, and hardly ever chosen beside the rest
    values["model"]["vocab"] = dict([*vocabulary.items()][:250])
    path = folder / "tokenizer.json"
    path.write_bytes(dump(mutate(values, rng)))
    opened = check(path).open(300)
    try:
        opened.encode(TEXT, add_special_tokens=False)
    except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
        raise QuaverError(str(error)) from None  # as `OrpheusPrompts` does


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    each.__name__: each
    for each in (config, codec, generation, raw, index, header, packed, tokenizer)
}


def outcome(kind: str, seed: int, folder: Path) -> str:
    """What comes of one case: "read", "refused", or what is wrong."""
    rng = random.Random(f"{kind} {seed}")
    started = time.process_time()
    try:
        KINDS[kind](folder, rng)
        found = "read"
    except QuaverError as error:
        message = str(error)
        fine = message.isprintable() and 0 < len(message) <= 4000
        found = "refused" if fine else f"not one line: {message!r}"
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        found = "".join(traceback.format_exception(error)[-3:])
    if (took := time.process_time() - started) > SLOW_SECONDS:
        found = f"{found} after {took:.0f} s"
    for file in folder.iterdir():
        file.unlink()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="all in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, help="one kind alone")
    given = parser.parse_args()
    kinds = [given.kind] if given.kind else list(KINDS)
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        for kind in kinds:
            counts: Counter[str] = Counter()
            for number in range(given.cases // len(kinds)):
                found = outcome(kind, given.seed * 10**9 + number, Path(place))
                counts[found if found in ("read", "refused") else "wrong"] += 1
                if found not in ("read", "refused"):
                    bad += 1
                    print(f"{kind} {number}: {found}")
            print(f"{kind}: {dict(counts)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
