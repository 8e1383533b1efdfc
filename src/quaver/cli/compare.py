"""`quaver compare`: does it still sound right in fewer bits? Measured, and decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quaver.cli.output import STATUS, check_output, judge_folders, print_json, stages, table_console
from quaver.core.errors import InputError
from quaver.core.voices import read_voices

if TYPE_CHECKING:
    from quaver.comparing import Comparison
    from quaver.quality.finding import Cell

Model = Annotated[str, typer.Argument(help="The reference: a bundled name, a folder, a hub id.")]
Candidate = Annotated[
    str | None, typer.Argument(help="The candidate; left out, it is MODEL under --recipe.")
]
Out = Annotated[Path, typer.Option(help="Folder for the report and all audio; goes on if begun.")]
Recipe = Annotated[str | None, typer.Option(help="The candidate's: int8, fp8, int8,head=int8, ...")]
ReferenceRecipe = Annotated[
    str | None, typer.Option(help="The reference's; default: fp32 on a CPU.")
]
Voices = Annotated[
    str | None, typer.Option(help="The voices that a fine-tune was trained with: elise,tom.")
]
Texts = Annotated[
    Path | None,
    typer.Option(help="Texts to speak, one a line; default: ours.", exists=True, dir_okay=False),
]
Gates = Annotated[
    Path | None,
    typer.Option(help="Requirements to change or add, as TOML.", exists=True, dir_okay=False),
]
Judge = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FOLDER of a stronger judge: whisper, wavlm or utmos. Repeatable."),
]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a comparison with the same reference; takes its speech over.",
        exists=True,
        file_okay=False,
    ),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="The first ten texts only: 2 to 6 minutes for the bundled voice on two CPU cores.",
    ),
]
Seeds = Annotated[int, typer.Option(help="How often each text is spoken, 1 to 20.")]
Seed = Annotated[int, typer.Option(min=0, max=2**40, help="Of all that is drawn.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: a GPU if any.")]
Json = Annotated[bool, typer.Option("--json", help="Print report.json too.")]


def compare(
    model: Model,
    out: Out,
    candidate: Candidate = None,
    recipe: Recipe = None,
    reference_recipe: ReferenceRecipe = None,
    voices: Voices = None,
    texts: Texts = None,
    gates: Gates = None,
    judge: Judge = None,
    like: Like = None,
    quick: Quick = False,
    seeds: Seeds = 1,
    seed: Seed = 0,
    device: Device = None,
    json: Json = False,
) -> int:
    """Compare two models, or one under two recipes, and decide whether the second still does.

    Exit status: 0 all requirements pass, 1 one fails, 3 one is not resolved.
    """
    if candidate is None and recipe is None:
        raise InputError("nothing to compare with; give --recipe, or a second model")
    names = read_voices(voices)
    check_output("--out", out, "report.json")
    from quaver.comparing import Named
    from quaver.comparing import compare as run
    from quaver.comparing.page import write_page
    from quaver.comparing.report import content, write_report

    with stages() as show:
        found = run(
            Named(model, reference_recipe, names),
            Named(candidate or model, recipe, names),
            out,
            texts=texts,
            gates=gates,
            judges=judge_folders(judge or ()),
            like=like,
            quick=quick,
            seeds=seeds,
            seed=seed,
            device=device,
            report=show,
        )
    write_report(out, found)
    page = write_page(out, found)
    if json:
        print_json(content(found))
    else:
        _print(found, page)
    return STATUS[content(found)["verdict"]]


def _print(found: Comparison, page: Path) -> None:
    from rich.table import Table

    console = table_console()
    table = Table(box=None, pad_edge=False)
    for heading in ("metric", "unit", "reference", "candidate", "change [90 %]", "by chance"):
        table.add_column(heading)
    for each in found.findings:
        cells = (each.reference, each.candidate, each.change, each.null)
        table.add_row(each.metric, each.unit, *(_cell(one) for one in cells))
    console.print(table)
    console.print()
    for outcome in found.outcomes:
        needed = outcome.decision.needed
        more = f", {needed} texts would resolve it" if needed else ""
        told = f"{outcome.decision.verdict.upper():<13} {outcome.name}: harm "
        console.print(f"{told}{_cell(outcome.harm)}, allowed {outcome.allowed:.3g}{more}")
    console.print(f"\n{found.blame}\n{page}", soft_wrap=True)


def _cell(cell: Cell) -> str:
    from quaver.quality.metrics.metric import NotMeasured

    if isinstance(cell, NotMeasured):
        return "-"
    return f"{cell.value:.3g} [{cell.low:.3g}, {cell.high:.3g}]"
