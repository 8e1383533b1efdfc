"""What does `quaver compare` say of every recipe of a model?

Each recipe is made by `quaver quantize`, or read from the original where it needs no checkpoint,
and compared with the model in fp32, which speaks once for all of them.

    python benchmarks/verdicts.py --model nano --work /tmp/verdicts --jobs 2 --out verdicts.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from quaver.bench.machine import write_result
from quaver.checkpoints.source import resolve
from quaver.comparing import Named, compare
from quaver.comparing.page import write_page
from quaver.comparing.report import content, write_report
from quaver.precision import RECIPES, find_recipe
from quaver.quantizing import quantize

EXACT = "fp32"


def verdict(
    model: str, recipe: str, work: Path, quick: bool, like: Path | None = None
) -> dict[str, Any]:
    """One recipe's report, shortened."""
    made, proof = work / f"made-{recipe}", work / f"proof-{recipe}"
    candidate = Named(model, recipe)
    size = weights(resolve(model).path)
    if find_recipe(recipe).quantises:
        shutil.rmtree(made, ignore_errors=True)
        size = quantize(model, made, recipe, device="cpu").bytes_after
        candidate = Named(str(made), None)
    found = compare(Named(model, EXACT), candidate, proof, like=like, quick=quick, device="cpu")
    write_report(proof, found)
    write_page(proof, found)
    told = content(found)
    row = {
        "recipe": recipe,
        "bytes": size,
        "verdict": told["verdict"],
        "requirements": {
            each["name"]: {key: each[key] for key in ("verdict", "harm", "allowed", "needed")}
            for each in told["requirements"]
        },
        "findings": {
            each["metric"]: {key: each[key] for key in ("candidate", "change", "null")}
            for each in told["findings"]
        },
        "culprits": told["culprits"],
    }
    print(json.dumps({key: row[key] for key in ("recipe", "verdict", "culprits")}), flush=True)
    return row


def weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--recipes", nargs="+", default=[r for r in RECIPES if r != EXACT])
    parser.add_argument("--work", type=Path, required=True, help="a folder for all reports")
    parser.add_argument("--quick", action="store_true", help="ten texts only")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    first, *others = wanted.recipes
    like = wanted.work / f"proof-{first}"
    # torch's threads do not survive a fork: nothing is computed in this process
    with ProcessPoolExecutor(wanted.jobs) as workers:
        shared = (wanted.work, wanted.quick)
        rows = [workers.submit(verdict, wanted.model, first, *shared).result()]
        asked = [workers.submit(verdict, wanted.model, each, *shared, like) for each in others]
        rows += [each.result() for each in asked]
    if wanted.out:
        write_result(wanted.out, {"model": wanted.model, "reference": EXACT, "recipes": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
