"""What does a model of Orpheus-3B's shape need on this GPU under each recipe, and how fast is it?

Each recipe has a process of its own, which loads a checkpoint with random weights as any other and
speaks: one stream, then many that are read in turn, codec and sampling included. Memory is what
the driver has given out, less what it had before the process.

    python benchmarks/recipes_large.py --folder /tmp/large --recipes bf16 fp8 int8 --streams 1 64
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from quantize_large import quantise

import quaver
from quaver.bench.machine import write_result
from quaver.bench.measure import WARM_UPS, text_for
from quaver.bench.streams import run_streams
from quaver.loading.parts import use_little_stack
from quaver.loading.seeded import write_seeded
from quaver.synthesizer import SpeechSynthesizer

SECONDS = 4.0  # of sound, at most
REPEATS = 3


def used(device: torch.device) -> int:
    """Bytes that the driver has given out, to whomever."""
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def speak(voice: SpeechSynthesizer, count: int) -> dict[str, float]:
    """`count` streams at once, after others that warm up; several times, since random weights may
    stop at once."""
    text = text_for(SECONDS)
    for _ in range(WARM_UPS[voice.info()["device"].partition(":")[0]]):
        run_streams(voice, text, SECONDS, range(count))
    runs = [
        run_streams(voice, text, SECONDS, range(first, first + count))
        for first in range(count, count * (REPEATS + 1), count)
    ]
    tokens, seconds = sum(run.tokens for run in runs), sum(run.seconds for run in runs)
    return {"tokens_per_second_each": tokens / seconds / count, "tokens": tokens / count}


def measure(folder: str, recipe: str, streams: list[int], name: str) -> dict[str, Any]:
    """One recipe, in this process. Bytes include the driver's own for a process."""
    device = torch.device(name)
    use_little_stack(device)
    row: dict[str, Any] = {"recipe": recipe, "streams": {}}
    for count in streams:
        started = time.perf_counter()
        voice = quaver.load(folder, None if recipe == "stored" else recipe, name, slots=count)
        loading = time.perf_counter() - started
        speed = speak(voice, count)
        facts = voice.info()
        row["streams"][str(count)] = {**speed, "load_seconds": loading, "used": used(device)}
        row |= {"weights": facts["bytes"], "step_bytes": facts["step_bytes"]}
        del voice
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return row


def isolated(wanted: argparse.Namespace, recipe: str, folder: Path) -> dict[str, Any]:
    """`measure` in a process of its own."""
    before = used(torch.device(wanted.device))
    command = [sys.executable, __file__, "--folder", str(folder), "--one", recipe]
    command += ["--device", wanted.device, "--streams", *map(str, wanted.streams)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{recipe}: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for found in row["streams"].values():
        found["process_gb"] = (found.pop("used") - before) / 1e9
    return row


def show(row: dict[str, Any], name: str) -> None:
    cells = [f"{name:<26} {row['weights'] / 1e9:8.2f}"]
    for found in row["streams"].values():
        cells.append(f"{found['process_gb']:9.2f} {found['tokens_per_second_each']:8.1f}")
    last = list(row["streams"].values())[-1]
    print(" ".join(cells), f"{last['load_seconds']:7.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for 7 to 20 GB, then removed")
    parser.add_argument("--recipes", nargs="+", default=["bf16", "fp8", "int8"])
    parser.add_argument("--quantize", nargs="*", default=[], help="recipes to make checkpoints of")
    parser.add_argument("--samples", type=int, default=8, help="texts of calibration")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=28, help="fewer for a trial")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(measure(str(wanted.folder), wanted.one, wanted.streams, wanted.device)))
        return 0
    rows: list[dict[str, Any]] = []
    try:
        original = wanted.folder / "original"
        write_seeded(original, layers=wanted.layers)
        heads = "".join(f"  GB, {n:2d} up   tok/s" for n in wanted.streams)
        print(f"recipe                      weights{heads}    load s", flush=True)
        for recipe in wanted.recipes:
            rows.append(isolated(wanted, recipe, original))
            show(rows[-1], recipe)
            _write(wanted.out, rows)
        for recipe in wanted.quantize:
            made = wanted.folder / "made"
            more = ["--device", wanted.device, "--samples", str(wanted.samples)]
            making = quantise(original, made, recipe, more)
            rows.append(isolated(wanted, "stored", made))
            rows[-1] |= {"recipe": f"{recipe}, calibrated", "quantize": making}
            show(rows[-1], rows[-1]["recipe"])
            shutil.rmtree(made)
            _write(wanted.out, rows)
    finally:
        shutil.rmtree(wanted.folder, ignore_errors=True)
    return 0


def _write(out: Path | None, rows: list[dict[str, Any]]) -> None:
    """Whatever was measured so far."""
    if out is not None:
        write_result(out, {"shape": "orpheus-3b", "recipes": rows})


if __name__ == "__main__":
    sys.exit(main())
