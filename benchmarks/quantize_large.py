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
from pathlib import Path

from quaver.bench.machine import write_result
from quaver.loading.seeded import write_seeded

# The kernel's own account of a process: what getrusage says of children starts from their parent.
PEAK = "VmHWM:"
VERB = """
import sys
from quaver.cli.main import run
status = run(sys.argv[1:])
print(open("/proc/self/status").read(), file=sys.stderr)
import torch
print("GPU", torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0, file=sys.stderr)
raise SystemExit(status)
"""


def quantise(folder: Path, out: Path, recipe: str, more: list[str]) -> dict[str, object]:
    """Run the verb in a process of its own; its seconds, peak memory in GB, and result."""
    arguments = ["quantize", str(folder), str(out), "--recipe", recipe, "--json", *more]
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
        "gpu_peak_gb": int(done.stderr.split("GPU ")[-1].split()[0]) / 1e9,
        "gb_before": made["bytes_before"] / 1e9,
        "gb_after": made["bytes_after"] / 1e9,
        "sqnr_worst": min(layer["sqnr_db"] for layer in made["layers"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for 14 GB, removed at the end")
    parser.add_argument("--recipes", nargs="+", default=["int8", "fp8,kv=bf16", "nf4"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=8, help="texts of calibration")
    parser.add_argument("--layers", type=int, default=28, help="fewer for a trial")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    more = ["--device", wanted.device, "--samples", str(wanted.samples)]
    rows = []
    try:
        original = wanted.folder / "original"
        largest = write_seeded(original, layers=wanted.layers)
        print(
            "recipe            seconds   peak GB   on GPU   GB before   after   (largest shard "
            f"{largest / 1e9:.1f} GB)"
        )
        for recipe in wanted.recipes:
            made = wanted.folder / "made"
            row = quantise(original, made, recipe, more)
            shutil.rmtree(made)
            rows.append(row)
            print(
                f"{recipe:<16} {row['seconds']:8.0f} {row['peak_gb']:9.2f} "
                f"{row['gpu_peak_gb']:8.2f} "
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
