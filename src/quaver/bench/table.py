"""Rows of a benchmark as people read them: lines, a table, a plot, a comparison of two."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quaver.core.errors import InputError
from quaver.core.files import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
LEAST_NOISE = 0.02  # of a speed: what differs by less is called the same, however often it was run
PLOTS = (".png", ".svg")
COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "shape": lambda row: row["shape"],
    "recipe": lambda row: f"`{row['recipe']}`",
    "streams": lambda row: f"{row['streams']}",
    "tokens/s each": lambda row: f"{row['tokens_per_s_per_stream']:.1f}",
    "floor": lambda row: f"{row['floor_tokens_per_s']:,.0f}",
    "share": lambda row: f"{row['share_of_floor']:.2f}",
    "RTF": lambda row: f"{row['rtf']:.3f}",
    "TTFA p50, ms": lambda row: _milliseconds(row, "p50"),
    "p95": lambda row: _milliseconds(row, "p95"),
    "never late": lambda row: f"{100 * row['underrun_free_share']:.0f} %",
    "GPU, GB": lambda row: "" if row.get("gpu_peak_gb") is None else f"{row['gpu_peak_gb']:.2f}",
}


def lines(row: Row) -> list[str]:
    """One row in words: floor, measured, ratio, and what a listener notices."""
    count = row["streams"]
    found = [
        f"{row['shape']}, {row['recipe']}, {count} stream{'s' * (count > 1)} on {row['device']}",
        f"  a step reads {row['step_gb']:.3g} GB and computes {row['step_gflop']:.3g} GFLOP; here "
        f"{row['read_gb_per_s']:,.0f} GB/s, {row['gflop_per_s']:,.0f} GFLOP/s",
        f"  floor {row['floor_tokens_per_s']:,.0f} tok/s each, measured "
        f"{row['tokens_per_s_per_stream']:,.1f} (spread {100 * row['spread']:.0f} %), "
        f"{100 * row['share_of_floor']:.0f} % of it",
        f"  RTF {row['rtf']:.3f}, {row['rtfx']:.2f} x real time; first sound after "
        f"{_milliseconds(row, 'p50')} ms (p95 {_milliseconds(row, 'p95')}, p99 "
        f"{_milliseconds(row, 'p99')}); {100 * row['underrun_free_share']:.0f} % never late",
    ]
    if row.get("gpu_peak_gb") is not None:
        found.append(f"  GPU memory of the process {row['gpu_peak_gb']:.2f} GB")
    if row.get("gpu_allocated_gb") is not None:
        found.append(
            f"  GPU memory of torch: {row['gpu_allocated_gb']:.2f} GB allocated, "
            f"{row['gpu_reserved_gb']:.2f} GB reserved, at most"
        )
    if row.get("rss_gb") is not None:
        found.append(
            f"  host memory of the process {row['rss_gb']:.2f} GB, at most {row['rss_peak_gb']:.2f}"
        )
    if row.get("characters_per_s") is not None:
        found.append(f"  {_text_speed(row)}")
    for each in row.get("lengths") or ():
        rtf = "-" if each["rtf"] is None else f"{each['rtf']:.3f}"
        speed = "cut off before its end" if each["words_per_s"] is None else _text_speed(each)
        found.append(
            f"  a text of {each['characters']} characters: first sound after "
            f"{_milliseconds(each, 'p50')} ms, RTF {rtf}, {each['sound_s']:.1f} s of sound; {speed}"
        )
    if row.get("cold_start_s") is not None:
        found.append(f"  a new process: first sample after {row['cold_start_s']:.1f} s")
    if guard := row.get("greedy"):
        found.append(
            f"  greedy: {100 * guard['same']:.1f} % of {guard['choices']} choices are plain "
            f"PyTorch's; the others within {guard['worst_nats']:.2g} nats"
        )
    if base := row.get("baseline"):
        ratio = row["tokens_per_s_per_stream"] / base["tokens_per_s"]
        found.append(f"  {base['name']}: {base['tokens_per_s']:.1f} tok/s, ours {ratio:.2f} x")
    return found


def _text_speed(row: Row) -> str:
    return (
        f"{row['words_per_s']:.1f} words and {row['characters_per_s']:.0f} characters of text a "
        "second, all streams together"
    )


def markdown(rows: Sequence[Row]) -> str:
    """A table, one line a row."""
    head = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    body = [" | ".join(cell(row) for cell in COLUMNS.values()) for row in rows]
    table = "\n".join(f"| {line} |" for line in [*head, *body])
    lengths = [(row, each) for row in rows for each in row.get("lengths") or ()]
    if not lengths:
        return table
    columns = ("recipe", "streams", "characters", "TTFA p50, ms", "RTF", "words/s")
    cells = [
        (
            f"`{row['recipe']}`",
            f"{row['streams']}",
            f"{each['characters']}",
            _milliseconds(each, "p50"),
            "-" if each["rtf"] is None else f"{each['rtf']:.3f}",
            "-" if each["words_per_s"] is None else f"{each['words_per_s']:.1f}",
        )
        for row, each in lengths
    ]
    more = [columns, ("---",) * len(columns), *cells]
    return "\n".join([table, "", *(f"| {' | '.join(line)} |" for line in more)])


def plot(rows: Sequence[Row], path: Path) -> None:
    """Streams against each one's speed, beside the floor and the line of real time.

    The ending of `path` is one of `PLOTS`. InputError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plot needs matplotlib; pip install matplotlib") from None
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Axes = figure.add_subplot()
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = sorted((row for row in rows if row["recipe"] == recipe), key=lambda r: r["streams"])
        streams = [row["streams"] for row in own]
        (line,) = axes.plot(
            streams, [row["tokens_per_s_per_stream"] for row in own], marker="o", label=recipe
        )
        floor = [row["floor_tokens_per_s"] for row in own]
        axes.plot(streams, floor, linestyle=":", color=line.get_color(), label=f"{recipe}, floor")
    axes.axhline(rows[0]["real_time_tokens_per_s"], color="gray", linestyle="--", label="real time")
    axes.set(xscale="log", yscale="log", xlabel="streams at once", ylabel="tokens/s of each")
    axes.set_title(f"{rows[0]['shape']} on {rows[0]['device']}")
    axes.set_xticks(ticks := sorted({row["streams"] for row in rows}), [str(t) for t in ticks])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a plot, whole or not at all, as the ending of `path` says; an SVG without its date."""
    kind = path.suffix.removeprefix(".")
    with new_file(path) as part:
        figure.savefig(
            part, dpi=160, format=kind, metadata={"Date": None} if kind == "svg" else None
        )


def read_rows(path: Path) -> list[Row]:
    """The rows of a result. InputError for a file that is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows: list[Row] = content["benchmark"]
        for row in rows:
            _key(row), row["tokens_per_s_per_stream"], row["spread"]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no result of `quaver bench --out`") from None
    return rows


def compare(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """What changed in speed by more than either spread, for the rows that both have.

    InputError if there are none.
    """
    old = {_key(row): row for row in before}
    pairs = [(old[_key(row)], row) for row in after if _key(row) in old]
    if not pairs:
        raise InputError("the results have no shape, recipe and number of streams in common")
    found = []
    for one, other in pairs:
        ratio = other["tokens_per_s_per_stream"] / one["tokens_per_s_per_stream"]
        noise = max(one["spread"], other["spread"], LEAST_NOISE)
        word = "same" if abs(ratio - 1) <= noise else "faster" if ratio > 1 else "slower"
        found.append(
            f"{word:<7} {other['shape']}, {other['recipe']}, {other['streams']}: "
            f"{one['tokens_per_s_per_stream']:.1f} to {other['tokens_per_s_per_stream']:.1f} "
            f"tok/s, {ratio:.3f} x, noise {100 * noise:.0f} %"
        )
    return found


def _key(row: Row) -> tuple[str, str, int]:
    return row["shape"], row["recipe"], row["streams"]


def _milliseconds(row: Row, name: str) -> str:
    return "-" if row["ttfa_ms"] is None else f"{row['ttfa_ms'][name]:.1f}"
