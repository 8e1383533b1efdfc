"""`quaver quantize`: a smaller checkpoint of a model, in a layout that others load too."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quaver.cli.output import print_json, table_console, warn

if TYPE_CHECKING:
    from quaver.quantizing.report import Progress, QuantizeReport

SHOWN = 20  # layers of the table; all are in quaver.json

Model = Annotated[str, typer.Argument(help="A bundled name, a folder, or a hub id.")]
Out = Annotated[Path, typer.Argument(help="The folder to make; it must be new or empty.")]
Recipe = Annotated[
    str,
    typer.Option(help="What to make: int8, fp8, int4, ... or with overrides: int8,*.down=bf16."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: a GPU if any.")]
Texts = Annotated[
    Path | None,
    typer.Option(
        help="Texts to calibrate on, one a line; default: our own.", exists=True, dir_okay=False
    ),
]
Samples = Annotated[
    int | None, typer.Option(min=1, max=1000, help="How many texts, at most; default: all.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of what the model says in calibration.")]
AllLayers = Annotated[
    bool,
    typer.Option("--all-layers", help="Quantise head and token table too; only Quaver loads that."),
]
MinSqnr = Annotated[
    float | None,
    typer.Option(help="Layers below so many dB stay dense; default: by the format."),
]
Json = Annotated[bool, typer.Option("--json", help="Report as JSON.")]


def quantize(
    model: Model,
    out: Out,
    recipe: Recipe,
    device: Device = None,
    calibration: Texts = None,
    samples: Samples = None,
    seed: Seed = 0,
    all_layers: AllLayers = False,
    min_sqnr: MinSqnr = None,
    json: Json = False,
) -> None:
    """Write MODEL to OUT with its layers in fewer bits.

    Works a layer at a time, on any machine. OUT appears when it is whole, and not before.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from quaver.quantizing import quantize as make

    with ExitStack() as stack:
        bar = stack.enter_context(Bar(console=Console(stderr=True), transient=True))
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage)
            bar.update(tasks[progress.stage], completed=progress.done, total=progress.total)

        made = make(
            model,
            out,
            recipe,
            device=device,
            calibration=calibration,
            samples=samples,
            seed=seed,
            all_layers=all_layers,
            least_sqnr=min_sqnr,
            report=show,
        )
    for layer in made.kept:
        warn(f"{layer.name} stays {layer.format}: {layer.wanted} leaves {layer.sqnr_db:.1f} dB")
    if json:
        print_json({"out": str(out), **asdict(made)})
    else:
        _print(made, out)


def _print(made: QuantizeReport, out: Path) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    table.add_column("format")
    table.add_column("SQNR, dB", justify="right")
    for layer in made.layers[:SHOWN]:
        table.add_row(layer.name, layer.format, f"{layer.sqnr_db:.1f}")
    console = table_console()
    console.print(table)
    if len(made.layers) > SHOWN:
        console.print(f"and {len(made.layers) - SHOWN} better ones, in {out / 'quaver.json'}")
    share = made.bytes_after / made.bytes_before
    console.print(
        f"{out}: {made.recipe}, {made.bytes_after / 1e6:,.1f} MB, {share:.0%} of "
        f'{made.bytes_before / 1e6:,.1f} MB. Try: quaver say --model {out} "Hello."',
        soft_wrap=True,
    )
