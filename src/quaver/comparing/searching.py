"""`quaver quantize --search`: the smallest checkpoint that passes.

A ladder of recipes. The first is the one asked for. If that fails, its comparison says how much
each part changes by itself, and each next rung leaves more of them in high precision, worst first:
one, two, four and so on. The reports of all rungs are kept in a folder beside the result, and the
same call goes on from there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quaver.checkpoints.atomic import new_file, refuse_occupied
from quaver.comparing import Comparison, Named, compare
from quaver.comparing.gated import PROOF, Gated
from quaver.comparing.page import write_page
from quaver.comparing.report import write_report
from quaver.comparing.swaps import Swap
from quaver.core.errors import InputError
from quaver.core.files import settle
from quaver.precision import Recipe, Role, find_recipe
from quaver.quality.gates import overall
from quaver.quality.stats import Verdict
from quaver.quantizing.report import Progress, QuantizeReport, Report, silent

STATE = "search.json"
Make = Callable[[str, Path], QuantizeReport]  # by a recipe, into a new folder


@dataclass(frozen=True, slots=True)
class Rung:
    """A recipe that was tried, the size of what it made, and what its comparison said."""

    recipe: str
    bytes: int
    verdict: str
    failed: tuple[str, ...]  # requirements


@dataclass(frozen=True, slots=True)
class Searched:
    """All rungs, and the last one's checkpoint if it was kept."""

    rungs: tuple[Rung, ...]
    kept: Gated | None
    folder: Path


def search(
    make: Make,
    model: str,
    out: Path,
    recipe: str,
    *,
    report: Report = silent,
    **options: Any,
) -> Searched:
    """Climb from `recipe` until a checkpoint of `model` passes, and keep that as `out`; `options`
    are those of `compare`. Stops where a requirement is not resolved: more texts would tell, more
    bits would not. InputError if `out` is taken, or its folder of rungs is another search's.
    """
    refuse_occupied(out)
    folder = out.with_name(f"{out.name}-search")
    asked = {"model": model, "recipe": recipe, **{k: str(v) for k, v in options.items()}}
    rungs, ladder = _begun(folder, asked)
    while not rungs or (rungs[-1].verdict == Verdict.FAIL and len(rungs) < len(ladder)):
        chosen = ladder[len(rungs)] if ladder else recipe
        place = folder / f"rung-{len(rungs)}"
        made = _made(make, chosen, place / "made")
        sides = Named(model, None), Named(str(place / "made"), None)
        told = _numbered(report, len(rungs), len(ladder))
        found = compare(*sides, place / PROOF, report=told, **options)
        write_report(place / PROOF, found)
        write_page(place / PROOF, found)
        verdict = overall(found.outcomes)
        rungs.append(Rung(chosen, made.bytes_after, verdict.value, _failed(found)))
        ladder = ladder or [recipe, *climb(find_recipe(recipe), found.swaps)]
        _write(folder, asked, rungs, ladder)
        if verdict is Verdict.PASS:
            return Searched(tuple(rungs), _keep(place, out, made, found), folder)
        shutil.rmtree(place / "made")
    return Searched(tuple(rungs), None, folder)


def climb(recipe: Recipe, swaps: Sequence[Swap]) -> list[str]:
    """Recipes with more and more of the parts in high precision, by what each changes alone."""
    worst = sorted(swaps, key=lambda each: each.kl.value, reverse=True)
    overrides = [found for each in worst if (found := _override(recipe, each))]
    counts = [2**power for power in range(len(overrides).bit_length())]
    counts = [count for count in counts if count < len(overrides)] + [len(overrides)]
    return [",".join([str(recipe), *overrides[:count]]) for count in counts if count]


def _override(recipe: Recipe, swap: Swap) -> str | None:
    """What keeps a part in the recipe's wide format; None if it is there already."""
    role, wide = swap.part.role, recipe.default.value
    if role is Role.BACKBONE:
        layer = swap.part.layer
        inside = recipe.format(role).quantised and layer is not None
        return f"backbone.layers.{layer}.*={wide}" if inside else None
    return f"{role}={wide}" if recipe.format(role).quantised else None


def _numbered(report: Report, number: int, of: int) -> Report:
    """Progress with the rung's number before it."""
    name = f"rung {number + 1}" + (f" of {of}" if of else "")
    return lambda seen: report(Progress(f"{name}: {seen.stage}", seen.done, seen.total))


def _made(make: Make, recipe: str, place: Path) -> QuantizeReport:
    """A rung's checkpoint; one that an earlier run left is made again."""
    shutil.rmtree(place, ignore_errors=True)
    return make(recipe, place)


def _failed(found: Comparison) -> tuple[str, ...]:
    return tuple(
        outcome.name for outcome in found.outcomes if outcome.decision.verdict is Verdict.FAIL
    )


def _keep(place: Path, out: Path, made: QuantizeReport, found: Comparison) -> Gated:
    (place / PROOF).rename(place / "made" / PROOF)
    if out.is_dir():
        out.rmdir()  # it is empty
    settle(place / "made", out)
    return Gated(made, found, out / PROOF)


def _write(folder: Path, asked: dict[str, str], rungs: Iterable[Rung], ladder: list[str]) -> None:
    state = {"asked": asked, "rungs": [asdict(rung) for rung in rungs], "ladder": ladder}
    with new_file(folder / STATE) as part:
        part.write_text(json.dumps(state, indent=1), encoding="utf-8")


def _begun(folder: Path, asked: dict[str, str]) -> tuple[list[Rung], list[str]]:
    """The rungs that an earlier run has judged, and its ladder."""
    path = folder / STATE
    if not path.exists():
        return [], []
    state = json.loads(path.read_text(encoding="utf-8"))
    if state["asked"] != asked:
        raise InputError(f"{folder} is of another search; move it, delete it, or give another OUT")
    rungs = [Rung(**{**rung, "failed": tuple(rung["failed"])}) for rung in state["rungs"]]
    return rungs, state["ladder"]
