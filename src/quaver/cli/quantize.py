"""`quaver quantize`: a smaller checkpoint of a model, in a layout that others load too."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quaver.cli.output import STATUS, check_output, print_json, stages, table_console, warn
from quaver.core.errors import InputError

if TYPE_CHECKING:
    from quaver.comparing.searching import Searched
    from quaver.quantizing.report import QuantizeReport

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
    int | None,
    typer.Option(
        min=1, max=1000, help="How many texts; default: all of --calibration, or 24 of our own 640."
    ),
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
Gate = Annotated[
    bool,
    typer.Option(
        "--gate", help="Keep the result only if it passes `quaver compare`; report beside it."
    ),
]
Search = Annotated[
    bool,
    typer.Option(
        "--search", help="As --gate, and while it fails keep more layers in high precision."
    ),
]
Gates = Annotated[
    Path | None,
    typer.Option(help="Requirements of --gate, as TOML.", exists=True, dir_okay=False),
]
Quick = Annotated[bool, typer.Option("--quick", help="Let --gate speak ten texts only.")]
Spoken = Annotated[
    Path | None,
    typer.Option(
        "--texts",
        help="What --gate speaks, one a line; default: ours.",
        exists=True,
        dir_okay=False,
    ),
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
    gate: Gate = False,
    search: Search = False,
    gates: Gates = None,
    texts: Spoken = None,
    quick: Quick = False,
    json: Json = False,
) -> int:
    """Write MODEL to OUT with its layers in fewer bits.

    Works a layer at a time, on any machine. OUT appears when it is whole, and not before.
    With --gate: exit status 0 if it was kept, 1 if a requirement fails, 3 if one is not resolved.
    """
    from quaver.checkpoints.atomic import refuse_occupied
    from quaver.comparing.gated import quantize_gated
    from quaver.comparing.searching import search as climb
    from quaver.quantizing import quantize as make

    judged = gate or search
    if not judged and (gates or texts or quick):
        raise InputError("--gates, --texts and --quick belong to --gate and --search; give one")
    refuse_occupied(out)
    check_output("OUT", out, "config.json")
    with stages() as show:

        def write(chosen: str, folder: Path) -> QuantizeReport:
            made = make(
                model,
                folder,
                chosen,
                device=device,
                calibration=calibration,
                samples=samples,
                seed=seed,
                all_layers=all_layers,
                least_sqnr=min_sqnr,
                report=show,
            )
            if made.calibration is None and (samples or calibration):
                warn(f"{made.recipe} is not calibrated: --samples and --calibration change nothing")
            return made

        if not judged:
            _tell(write(recipe, out), out, json, {})
            return 0
        options = {"device": device, "gates": gates, "texts": texts, "quick": quick, "seed": seed}
        if search:
            return _tell_search(climb(write, model, out, recipe, report=show, **options), out, json)
        done = quantize_gated(partial(write, recipe), model, out, report=show, **options)
    _tell(done.made, out, json, {"verdict": done.verdict.value, "proof": str(done.proof)})
    return STATUS[done.verdict.value]


def _tell(made: QuantizeReport, out: Path, json: bool, proof: dict[str, str]) -> None:
    """What was made, and what became of it; `proof` is empty if nobody asked for any."""
    if made.calibration is not None:
        warn(made.calibration["note"])
    for layer in made.kept:
        warn(f"{layer.name} stays {layer.format}: {layer.wanted} leaves {layer.sqnr_db:.1f} dB")
    if json:
        print_json({"out": str(out), **asdict(made), **proof})
        return
    _print(made, out)
    console = table_console()
    if proof:
        fate = "kept" if out.exists() else "not kept"
        verdict = proof["verdict"].upper()
        console.print(f"{verdict}: {out} is {fate}; see {proof['proof']}", soft_wrap=True)
    if out.exists():
        console.print(f'Try: quaver say --model {out} "Hello."', soft_wrap=True)


def _tell_search(found: Searched, out: Path, json: bool) -> int:
    """All rungs and the one that was kept; returns the exit status."""
    last = found.rungs[-1]
    if json:
        made = {} if found.kept is None else asdict(found.kept.made)
        print_json(
            {
                "out": str(out),
                **made,
                "verdict": last.verdict,
                "rungs": [asdict(rung) for rung in found.rungs],
                "folder": str(found.folder),
            }
        )
        return STATUS[last.verdict]
    console = table_console()
    for rung in found.rungs:
        told = f"{rung.verdict.upper():<12} {rung.bytes / 1e6:10,.1f} MB  {rung.recipe}"
        console.print(told, *(rung.failed and [f" ({', '.join(rung.failed)})"]), soft_wrap=True)
    fate = "is the last of them" if found.kept else "was not made: none passed"
    console.print(f"{out} {fate}; their reports are in {found.folder}", soft_wrap=True)
    return STATUS[last.verdict]


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
        f"{made.recipe}: {made.bytes_after / 1e6:,.1f} MB, {share:.0%} of "
        f"{made.bytes_before / 1e6:,.1f} MB"
    )
