"""What does each recipe cost, in size, in noise, in choices and in words?

For every recipe the model is quantised by `quaver quantize`, loaded again, told what the fp32 model
said, and asked what it would say next. With --words it also speaks, and is heard.

    python benchmarks/precision.py --model nano --recipes bf16 int8 fp8 int4 --out precision.json

prints a table, beside what `verdicts.py` heard if that is given. A result's table is printed by

    python benchmarks/precision.py --result precision.json --heard verdicts.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from nano_quality import flite, measure, quaver_synthesizer

from quaver.bench.machine import write_result
from quaver.checkpoints.source import resolve
from quaver.engine.cache import KVCache, PrefillView
from quaver.engine.keeping import keeping
from quaver.loading.orpheus import load_orpheus, stored_recipe
from quaver.loading.parts import find_device
from quaver.precision import Recipe, Role, find_recipe
from quaver.quality.metrics.agreement import Agreement, agreement
from quaver.quality.panel import PLAIN_SENTENCES
from quaver.quantizing import quantize
from quaver.quantizing.speech import Spoken, speak

RECIPES = (
    *("fp32", "bf16", "fp16", "int8", "int8-dynamic", "fp8", "fp8,kv=bf16", "fp8-static"),
    *(
        "fp8-block",
        "fp8-weight",
        "fp8-e5m2",
        "int4",
        "nf4",
        "int8,kv=int8",
        "int8,head=int8,embed=int8",
    ),
)
WER_VOICES = ("slt", "rms", "awb")


@dataclass(frozen=True)
class Row:
    """One recipe. SQNR in dB of the quantised layers, bytes of the language model's file."""

    recipe: str
    bytes: int
    quantize_seconds: float | None
    sqnr_worst: float | None
    sqnr_mean: float | None
    kl_nats: float
    top1: float
    wer: dict[str, float] | None  # by voice, in points over the source


def forced_logits(
    folder: Path, recipe: Recipe, spoken: Sequence[Spoken], device: torch.device
) -> list[list[torch.Tensor]]:
    """For each sequence, logits by position in the frame. Keys and values are kept as they say."""
    model = load_orpheus(folder, "", recipe, device)
    layers = model.cache_spec.layers
    kept = keeping(recipe.format(Role.KV), layers, model.kv_scales)
    found = []
    with torch.inference_mode():
        for each in spoken:
            length = len(each.tokens) - 1
            view = PrefillView(KVCache(model.cache_spec, 1, length, kept, device), 0, 0, length)
            found.append(model.forced(each.tokens[None], each.codes, view))
    return found


def compare(reference: list[list[torch.Tensor]], candidate: list[list[torch.Tensor]]) -> Agreement:
    pairs = zip(reference, candidate, strict=True)
    each = [agreement(r, c) for rs, cs in pairs for r, c in zip(rs, cs, strict=True)]
    return reduce(add, each, Agreement())


def words(model: str, recipe: str | None, sentences: int) -> dict[str, float]:
    """Word error rate over the source's, in points, by voice."""
    texts = PLAIN_SENTENCES[:sentences]
    reports = measure(WER_VOICES, texts, flite, quaver_synthesizer(model, recipe), 0, jobs=1)
    return {report.voice: 100 * report.wer_difference for report in reports}


def row(
    model: str,
    name: str,
    spoken: Sequence[Spoken],
    reference: list[list[torch.Tensor]],
    device: torch.device,
    sentences: int,
) -> Row:
    recipe, source = find_recipe(name), resolve(model).path
    with TemporaryDirectory() as scratch:
        report, seconds, made = None, None, source
        if recipe.quantises:
            made = Path(scratch) / "made"
            started = time.perf_counter()
            kv = "fp8" if recipe.format(Role.KV).value == "fp8" else "bf16"
            report = quantize(model, made, f"{name},kv={kv}", device=str(device))
            seconds = time.perf_counter() - started
            stored = stored_recipe(made)
            assert stored is not None, "it was quantised"
            # a checkpoint says which cache it was calibrated for, not which other is wanted
            recipe = find_recipe(f"{stored},kv={recipe.format(Role.KV)}")
        found = compare(reference, forced_logits(made, recipe, spoken, device))
        heard = words(str(made), str(recipe), sentences) if sentences else None
        sqnr = [layer.sqnr_db for layer in report.layers] if report else []
        return Row(
            recipe=name,
            bytes=sum(file.stat().st_size for file in made.glob("*.safetensors")),
            quantize_seconds=seconds,
            sqnr_worst=min(sqnr) if sqnr else None,
            sqnr_mean=sum(sqnr) / len(sqnr) if sqnr else None,
            kl_nats=found.kl_nats,
            top1=found.top1,
            wer=heard,
        )


def table(rows: Sequence[dict[str, Any]], heard: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown: rows of a result, and word error rates in those of `verdicts`."""
    found = {row["recipe"]: row["findings"]["wer"] for row in heard}
    lines = [
        "| recipe | MB | SQNR, worst | mean | KL | top-1 | words wrong, % | change, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        noise = [row["sqnr_worst"], row["sqnr_mean"]]
        cells = ["" if each is None else f"{each:.1f}" for each in noise]
        wer, words = found.get(row["recipe"]), ["", ""]
        if wer is not None:
            value, low, high = (100 * wer["change"][key] for key in ("value", "low", "high"))
            words = [
                f"{100 * wer['candidate']['value']:.1f}",
                f"{value:+.1f} [{low:+.1f}, {high:+.1f}]",
            ]
        cells = [f"`{row['recipe']}`", f"{row['bytes'] / 1e6:.1f}", *cells]
        cells += [f"{row['kl_nats']:.5f}", f"{row['top1']:.3f}", *words]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def recipes_of(file: Path | None) -> list[dict[str, Any]]:
    """Of a result."""
    if file is None:
        return []
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["recipes"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--device")
    parser.add_argument("--texts", type=int, default=12, help="read by the fp32 model")
    parser.add_argument("--words", type=int, default=0, help="sentences a voice to be heard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--result", type=Path, help="measure nothing, print this one's table")
    parser.add_argument("--heard", type=Path, help="a result of verdicts.py")
    wanted = parser.parse_args()
    heard = recipes_of(wanted.heard)
    if wanted.result is not None:
        print("\n".join(table(recipes_of(wanted.result), heard)))
        return 0
    device, folder = find_device(wanted.device), resolve(wanted.model).path
    fp32 = find_recipe("fp32")
    model = load_orpheus(folder, "", fp32, device)
    spoken = speak(model, folder, PLAIN_SENTENCES[-wanted.texts :], wanted.seed, device)
    reference = forced_logits(folder, fp32, spoken, device)
    print(f"{sum(each.codes for each in spoken)} codes in {len(spoken)} texts", file=sys.stderr)
    rows = []
    for name in wanted.recipes:
        rows.append(row(wanted.model, name, spoken, reference, device, wanted.words))
        wer = "  ".join(f"{voice} {points:+.1f}" for voice, points in (rows[-1].wer or {}).items())
        print(f"{name} {wer}", file=sys.stderr, flush=True)
    print("\n".join(table([asdict(r) for r in rows], heard)))
    if wanted.out:
        facts = {"model": wanted.model, "device": str(device), "texts": wanted.texts}
        write_result(wanted.out, facts | {"recipes": [asdict(r) for r in rows]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
