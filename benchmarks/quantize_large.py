"""How long does `quaver quantize` take for a model of Orpheus-3B's shape, and how much memory?

Writes a checkpoint of that shape with random weights (6.6 GB in bf16, in shards as they are
published), quantises it in a process of its own, and reports that process's peak memory.

    python benchmarks/quantize_large.py --folder /tmp/large --recipes int8 fp8,kv=bf16 nf4
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from quaver.bench.machine import write_result
from quaver.bench.shapes import ORPHEUS_3B
from quaver.checkpoints.write import write_checkpoint
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.weights import sources
from quaver.precision import find_recipe

CONFIG = ORPHEUS_3B | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
}
SHARD_BYTES = 5 * 10**9
# The kernel's own account of a process: what getrusage says of children starts from their parent.
PEAK = "VmHWM:"
VERB = """
import sys
from quaver.cli.main import run
status = run(sys.argv[1:])
print(open("/proc/self/status").read(), file=sys.stderr)
raise SystemExit(status)
"""


def weights() -> Iterator[tuple[str, Tensor]]:
    """Random weights under the published names, one at a time."""
    config = OrpheusConfig.from_dict(CONFIG, "large")
    with torch.device("meta"):
        shapes = Orpheus(config, find_recipe("bf16")).state_dict()
    generator = torch.Generator().manual_seed(0)
    for source in sources(config):
        for name, shape in zip(
            source.names, source.shapes(shapes[source.target].shape), strict=True
        ):
            if len(shape) == 1:
                yield name, torch.ones(shape, dtype=torch.bfloat16)
                continue
            block = torch.randn(min(shape[0], 1024), shape[1], generator=generator) * 0.02
            repeated = block.bfloat16().repeat(-(-shape[0] // len(block)), 1)
            yield name, repeated[: shape[0]].contiguous()


def quantise(folder: Path, out: Path, recipe: str) -> dict[str, object]:
    """Run the verb in a process of its own; its seconds, peak memory in GB, and result."""
    arguments = ["quantize", str(folder), str(out), "--recipe", recipe, "--json"]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", VERB, *arguments], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    made = json.loads(done.stdout)
    peak = int(done.stderr.split(PEAK)[1].split()[0])  # in kB
    return {
        "recipe": recipe,
        "seconds": seconds,
        "peak_gb": peak * 1024 / 1e9,
        "gb_before": made["bytes_before"] / 1e9,
        "gb_after": made["bytes_after"] / 1e9,
        "sqnr_worst": min(layer["sqnr_db"] for layer in made["layers"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for 14 GB, removed at the end")
    parser.add_argument("--recipes", nargs="+", default=["int8", "fp8,kv=bf16", "nf4"])
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    rows = []
    try:
        original = wanted.folder / "original"
        write_checkpoint(original, weights(), config=CONFIG, max_shard_bytes=SHARD_BYTES)
        largest = max(file.stat().st_size for file in original.glob("*.safetensors"))
        print(
            "recipe            seconds   peak GB   GB before   after   (largest shard "
            f"{largest / 1e9:.1f} GB)"
        )
        for recipe in wanted.recipes:
            made = wanted.folder / "made"
            row = quantise(original, made, recipe)
            shutil.rmtree(made)
            rows.append(row)
            print(
                f"{recipe:<16} {row['seconds']:8.0f} {row['peak_gb']:9.2f} "
                f"{row['gb_before']:11.2f} {row['gb_after']:7.2f}",
                flush=True,
            )
    finally:
        shutil.rmtree(wanted.folder, ignore_errors=True)
    if wanted.out:
        write_result(wanted.out, {"shape": "orpheus-3b", "recipes": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
