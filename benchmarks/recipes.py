"""How fast is a model under each recipe, and how near to its floor?

The floor of one stream is memory: every token reads the layers' weights and its codebook's rows of
the head once. Bandwidth is measured in the same run, by copying. Recipes take turns, so that what
else the machine does falls on all of them.

    python benchmarks/recipes.py --model nano --recipes fp32 bf16 int8 --out recipes.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import quaver
from quaver.bench.machine import write_result
from quaver.loading.parts import find_device
from quaver.synthesizer import SpeechSynthesizer

TEXT = "The train was late, so we walked along the river and talked about the summer."


def bandwidth(device: torch.device, size: int = 256 * 2**20) -> float:
    """Bytes a second, read and written, of the best of ten copies."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(timed(lambda: target.copy_(source), device) for _ in range(10))


def timed(call: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(voice: SpeechSynthesizer, seed: int) -> dict[str, float]:
    """One utterance."""
    audio = voice.generate(TEXT, seed=seed)
    stats = audio.stats
    return {
        "rtf": stats.busy_seconds / stats.audio_seconds,
        "tokens_per_second": stats.tokens / stats.busy_seconds,
        "ttfa_seconds": stats.ttfa_seconds or float("nan"),
    }


def run(model: str, recipes: list[str], device: torch.device, rounds: int) -> list[dict[str, Any]]:
    voices = {recipe: quaver.load(model, recipe, str(device)) for recipe in recipes}
    rate = bandwidth(device)
    found: dict[str, list[dict[str, float]]] = {recipe: [] for recipe in recipes}
    for turn in range(rounds + 1):  # the first warms up
        for recipe, voice in voices.items():
            result = measure(voice, seed=turn)
            if turn:
                found[recipe].append(result)
    rows = []
    for recipe, voice in voices.items():
        results = found[recipe]
        read = voice.info()["step_bytes"]
        middle = {key: statistics.median(r[key] for r in results) for key in results[0]}
        floor = rate / read
        rows.append(
            {
                "recipe": recipe,
                **middle,
                "step_bytes": read,
                "floor_tokens_per_second": floor,
                "share_of_floor": middle["tokens_per_second"] / floor,
                "bytes": voice.info()["bytes"],
                "rounds": results,
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--recipes", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--device")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    device = find_device(wanted.device)
    rows = run(wanted.model, wanted.recipes, device, wanted.rounds)
    print("recipe        MB   RTF   TTFA s   tokens/s    floor   share")
    for row in rows:
        print(
            f"{row['recipe']:<10} {row['bytes'] / 1e6:5.1f} {row['rtf']:5.2f} "
            f"{row['ttfa_seconds']:8.3f} {row['tokens_per_second']:10.0f} "
            f"{row['floor_tokens_per_second']:8.0f} {row['share_of_floor']:7.2f}"
        )
    if wanted.out:
        write_result(wanted.out, {"model": wanted.model, "device": str(device), "recipes": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
