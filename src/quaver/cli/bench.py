"""`quaver bench`: how fast, how near to the floor, and how soon there is sound."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quaver.cli.output import check_output
from quaver.core.errors import InputError
from quaver.core.files import scratch_folder
from quaver.core.textfile import argument_text

if TYPE_CHECKING:
    from quaver.bench.measure import Keep, Plan
    from quaver.bench.streams import Run

COMPARE, SERVE = "compare", "serve"
SOUND_SECONDS = 8.0
MOST_STREAMS, MOST_SECONDS, MOST_REPEATS, MOST_LENGTH = 4096, 600.0, 100, 10_000

Model = Annotated[
    list[str] | None,
    typer.Argument(
        help="A bundled name, a folder, a hub id; or `compare A.json B.json`, two results; or "
        "`serve URL`, a running service."
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(help="Instead of MODEL: random weights of a published shape, orpheus-3b."),
]
Layers = Annotated[int | None, typer.Option(min=1, help="Of --shape; fewer for a trial.")]
Recipe = Annotated[str | None, typer.Option(help="Precision, such as bf16, int8, fp8.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: a GPU if any.")]
Streams = Annotated[str, typer.Option(help="How many at once; several with commas: 1,8,64.")]
Seconds = Annotated[
    float | None,
    typer.Option(help="Of sound of each stream, at most: 8. Of a service: of asking, 30."),
]
Text = Annotated[
    str | None,
    typer.Option(help="What each stream says, one segment; default: what takes about --seconds."),
]
Rate = Annotated[
    str | None,
    typer.Option(help="Of a service: requests a second, at random, whatever --streams says."),
]
FreshConnections = Annotated[
    bool,
    typer.Option(
        "--fresh-connections", help="serve: a connection for each request; default: they are kept."
    ),
]
MaxSeconds = Annotated[
    float | None, typer.Option(min=0.1, help="Of a service: of sound of a segment, at most.")
]
LowLatency = Annotated[
    bool, typer.Option("--low-latency", help="Begin one frame sooner, as `say` and `serve` can.")
]
Repeats = Annotated[int, typer.Option(help="Runs of each, after one that warms up.")]
Seed = Annotated[int, typer.Option(min=0, max=2**40, help="Of the first stream.")]
Baseline = Annotated[
    str | None, typer.Option(help="Measure others on the same weights too: transformers.")
]
Cold = Annotated[bool, typer.Option("--cold", help="Time a new process to its first sample too.")]
Graphs = Annotated[
    bool,
    typer.Option("--graphs/--no-graphs", help="Record steps: a GPU's, or a small model's layers."),
]
Lengths = Annotated[
    str | None,
    typer.Option(help="Also time whole texts of so many characters: 15,75,250."),
]
KeepAudio = Annotated[
    Path | None,
    typer.Option(help="Folder for what is spoken, a WAV file a stream.", file_okay=False),
]
Out = Annotated[
    Path | None,
    typer.Option(help="File for the result and its machine.", dir_okay=False),
]
Plot = Annotated[Path | None, typer.Option(help="File for a plot, .png or .svg; needs matplotlib.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a table for a page too.")]


def bench(
    model: Model = None,
    shape: Shape = None,
    layers: Layers = None,
    recipe: Recipe = None,
    device: Device = None,
    streams: Streams = "1",
    seconds: Seconds = None,
    text: Text = None,
    rate: Rate = None,
    max_seconds: MaxSeconds = None,
    fresh_connections: FreshConnections = False,
    low_latency: LowLatency = False,
    repeats: Repeats = 3,
    seed: Seed = 0,
    baseline: Baseline = None,
    cold: Cold = False,
    graphs: Graphs = True,
    lengths: Lengths = None,
    keep_audio: KeepAudio = None,
    out: Out = None,
    plot: Plot = None,
    markdown: Markdown = False,
) -> None:
    """Measure speed, codec and sampling included, beside what this device could do at best.

    Prints the floor, what was measured and their ratio, then one line of JSON a number of streams.
    """
    given = model or []
    if given[:1] == [COMPARE]:
        _compare(given[1:])
        return
    if given[:1] == [SERVE]:
        if len(given) != 2:
            raise InputError("serve takes one URL, such as http://127.0.0.1:8000")
        _check_plot(plot)
        from quaver.cli.bench_serve import bench_serve

        with _written():
            bench_serve(
                given[1], streams, rate, seconds, max_seconds, seed, out, plot, fresh_connections
            )
        return
    if len(given) != (shape is None):
        raise InputError("give one MODEL, or --shape, or `compare` and two results")
    sound = SOUND_SECONDS if seconds is None else seconds
    plan = replace(
        _plan(streams, sound, repeats, seed, text, low_latency), lengths=_lengths(lengths)
    )
    keep = None if keep_audio is None else _keeper(keep_audio)
    _check_baseline(baseline)
    _check_plot(plot)
    check_output("--out", out)
    check_output("--plot", plot)
    with _folder(given, shape, layers) as name:
        rows = _measure(name, recipe, device, plan, graphs, keep)
        for row in rows:
            row |= {"shape": shape or row["shape"], "graphs": graphs}
        if cold:
            from quaver.bench.cold import cold_start

            rows[0]["cold_start_s"] = cold_start(name, recipe, device)
        if baseline is not None:
            _add_baseline(rows, name)
    _show(rows, markdown)
    with _written():
        _save(rows, out, plot)
    if any(row["greedy"] is not None and not row["greedy"]["right"] for row in rows):
        print("the engine's choices are not those of plain PyTorch", file=sys.stderr)
        raise typer.Exit(1)


@contextmanager
def _written() -> Iterator[None]:
    """InputError for a result that cannot be."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from None


def _check_plot(plot: Path | None) -> None:
    from quaver.bench.table import PLOTS

    if plot is not None and plot.suffix not in PLOTS:
        raise InputError(f"--plot is {plot}; allowed endings are {', '.join(PLOTS)}")


def _check_baseline(baseline: str | None) -> None:
    from quaver.bench.baseline import check_baseline

    if baseline is not None:
        check_baseline(baseline)


def _show(rows: list[dict[str, Any]], markdown: bool) -> None:
    from quaver.bench.machine import fingerprint
    from quaver.bench.table import lines
    from quaver.bench.table import markdown as as_markdown

    for row in rows:
        print("\n".join(lines(row)))
    if markdown:
        print(f"\n{as_markdown(rows)}\n")
    machine = fingerprint()
    for row in rows:
        print(json.dumps(row | {"machine": machine}))


def _save(rows: list[dict[str, Any]], out: Path | None, plot: Path | None) -> None:
    from quaver.bench.machine import write_result
    from quaver.bench.table import plot as draw

    if out is not None:
        write_result(out, {"benchmark": rows})
    if plot is not None:
        draw(rows, plot)


def _measure(
    name: str,
    recipe: str | None,
    device: str | None,
    plan: Plan,
    graphs: bool,
    keep: Keep | None = None,
) -> list[dict[str, Any]]:
    """Rows, with progress on stderr."""
    from rich.console import Console

    from quaver.bench.measure import measure
    from quaver.bench.memory import driver_bytes

    number = (device or "").partition(":")[2]
    gpu = int(number) if number.isdigit() else 0
    before = driver_bytes(gpu)  # asked before this process has anything on a GPU
    from quaver.loading import open_model, parts

    parts.use_little_stack(parts.find_device(device))
    console = Console(stderr=True)
    with console.status("loading") as status:

        def loaded(slots: int) -> Any:
            opened = replace(open_model(name, recipe, device, slots=slots), graphs=graphs)
            return opened.synthesizer

        rows = measure(loaded, plan, gpu, before, status.update, keep)
        status.update("comparing with plain PyTorch")
        return _guarded(rows, name, recipe, device, graphs)


def _guarded(
    rows: list[dict[str, Any]], name: str, recipe: str | None, device: str | None, graphs: bool
) -> list[dict[str, Any]]:
    """With what the engine's choices are worth to plain PyTorch on the same weights."""
    from quaver.bench.measure import SENTENCE
    from quaver.comparing.greedy import greedy
    from quaver.loading import open_model

    opened = replace(open_model(name, recipe, device, slots=1), graphs=graphs)
    found = greedy(opened, SENTENCE)
    for row in rows:
        row["greedy"] = None if found is None else asdict(found) | {"right": found.right}
    return rows


def _plan(
    streams: str, seconds: float, repeats: int, seed: int, text: str | None, low_latency: bool
) -> Plan:
    from quaver.bench.measure import COMFORTABLE, Plan

    text = None if text is None else argument_text(text, "--text")
    if text is not None and not 0 < len(text.strip()) <= COMFORTABLE:
        raise InputError(f"--text has {len(text.strip())} characters; give 1 to {COMFORTABLE}")
    try:
        counts = tuple(int(each) for each in streams.split(","))
    except ValueError:
        raise InputError(f"--streams is {streams!r}; give numbers such as 1,8,64") from None
    allowed = (
        ("--streams", streams, min(counts) >= 1 and max(counts) <= MOST_STREAMS, MOST_STREAMS),
        ("--seconds", seconds, 0 < seconds <= MOST_SECONDS, MOST_SECONDS),
        ("--repeats", repeats, 1 <= repeats <= MOST_REPEATS, MOST_REPEATS),
    )
    for name, value, fine, most in allowed:
        if not fine:
            raise InputError(f"{name} is {value}; allowed is more than 0, up to {most:g}")
    return Plan(counts, seconds, repeats, seed, text, low_latency)


def _lengths(given: str | None) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in given.split(",")) if given is not None else ()
    except ValueError:
        found = (0,)
    if not all(1 <= each <= MOST_LENGTH for each in found):
        raise InputError(
            f"--lengths is {given!r}; give numbers of characters from 1 to {MOST_LENGTH:,}, "
            "such as 15,75,250"
        )
    return found


def _keeper(folder: Path) -> Keep:
    """What writes a run's streams into `folder`. InputError if it cannot be made or written to."""
    with _written():
        folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str, run: Run) -> None:
        import numpy as np

        from quaver.audio.encode import StreamWriter

        for number, each in enumerate(run.heard):
            file = folder / f"{name}-stream-{number}-seed-{each.stats.seed}.wav"
            with _written(), StreamWriter(file, each.sample_rate, "wav") as writer:
                writer.write(np.concatenate(each.sound or [np.zeros(0, np.float32)]))

    return keep


@contextmanager
def _folder(given: list[str], shape: str | None, layers: int | None) -> Iterator[str]:
    """The model's name; for a shape, a folder that lasts as long as the block."""
    if shape is None:
        yield given[0]
        return
    from quaver.loading.seeded import SHAPES, write_seeded

    if shape not in SHAPES:
        raise InputError(f"--shape is {shape!r}; allowed is {', '.join(SHAPES)}")
    with scratch_folder(Path(tempfile.gettempdir())) as scratch:
        write_seeded(scratch / shape, shape, layers)
        yield str(scratch / shape)


def _add_baseline(rows: list[dict[str, Any]], name: str) -> None:
    """What transformers does with one stream, beside every row of one."""
    from quaver.bench.baseline import transformers_speed
    from quaver.checkpoints.source import resolve

    for row in rows:
        if row["streams"] == 1:
            prompt, tokens = int(row["prompt_tokens"]), int(row["tokens"])
            folder = resolve(name).path
            row["baseline"] = transformers_speed(folder, row["device"], prompt, tokens)


def _compare(files: list[str]) -> None:
    if len(files) != 2:
        raise InputError(f"compare takes two results, and {len(files)} were given")
    from quaver.bench.table import compare, read_rows

    print("\n".join(compare(*(read_rows(Path(file)) for file in files))))
