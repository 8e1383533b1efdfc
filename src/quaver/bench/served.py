"""What a crowd of listeners found, as a row, lines and a plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from quaver.bench.listening import Crowd, Listened
from quaver.bench.measure import LATE, percentiles
from quaver.bench.streams import FORGIVEN
from quaver.bench.table import save_figure
from quaver.core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def served_row(crowd: Crowd, seconds: float, model: dict[str, Any]) -> dict[str, Any]:
    """One run in numbers. Shares are of the streams that were accepted."""
    load = crowd.load
    about = {key: model[key] for key in ("id", "recipe", "device")}
    sound = sum(sum(each.heard.samples) for each in crowd.said) / crowd.rate
    return {
        "service": load.url,
        "model": about,
        "rate": load.rate,
        "listeners": load.listeners,
        "max_seconds": load.max_seconds,
        "connections": "fresh" if load.fresh_connections else "kept",
        "seconds": seconds,
        "most_at_once": crowd.most,
        "sound_per_second": sound / seconds,
        **_summary(crowd.said),
        "by_concurrency": [
            {"at_once": at_once, **_summary(own)} for at_once, own in _by_concurrency(crowd.said)
        ],
    }


def _summary(said: Sequence[Listened]) -> dict[str, Any]:
    whole = [each for each in said if each.outcome == "ok"]
    outcomes = Counter(each.outcome for each in said)
    accepted = [each for each in said if each.heard.arrivals]
    delays = [1e3 * h.heard.first_audible for h in whole if h.heard.first_audible is not None]
    lateness = [each.heard.lateness for each in whole]
    lengths = [sum(each.heard.samples) / each.heard.sample_rate for each in whole]
    rtf = [e.seconds / length for e, length in zip(whole, lengths, strict=True) if length]
    return {
        "requests": len(said),
        "whole": len(whole),
        "refused": sum(count for name, count in outcomes.items() if name[:4] in ("429 ", "503 ")),
        "outcomes": dict(outcomes),
        "ttfa_ms": percentiles(delays),
        "gap_ms": percentiles([1e3 * gap for each in whole for gap in each.heard.gaps]),
        "continuity_ok_share": _share(lateness, len(accepted), FORGIVEN),
        "underrun_free_share": _share(lateness, len(accepted), LATE),
        "latest_ms": 1e3 * max(lateness) if lateness else None,
        "rtf": median(rtf) if rtf else None,
        "sound_s": mean(lengths) if lengths else None,
    }


def _share(lateness: Sequence[float], accepted: int, late: float) -> float | None:
    """Of what was accepted, what came whole and never later; what broke off was not continuous."""
    return sum(each <= late for each in lateness) / accepted if accepted else None


def _by_concurrency(said: Sequence[Listened]) -> list[tuple[str, list[Listened]]]:
    """By how many listened when each was asked, in powers of two."""
    found: dict[int, list[Listened]] = {}
    for each in said:
        found.setdefault((each.at_once - 1).bit_length(), []).append(each)
    return [(_range(1 << power), own) for power, own in sorted(found.items())]


def _range(most: int) -> str:
    least = most // 2 + 1
    return f"{most}" if least >= most else f"{least}-{most}"


def served_lines(row: dict[str, Any]) -> list[str]:
    """One row in words."""
    asked = f"{row['rate']:g} requests/s" if row["rate"] else f"{row['listeners']} listeners"
    about = "{id}, {recipe} on {device}".format(**row["model"])
    found = [
        f"{about}: {asked}, in {row['seconds']:.0f} s "
        f"at most {row['most_at_once']} at once, {row['sound_per_second']:.1f} s of sound a second"
    ]
    parts = row["by_concurrency"] if len(row["by_concurrency"]) > 1 else []
    for name, part in [("all", row), *((each["at_once"], each) for each in parts)]:
        ttfa = part["ttfa_ms"] or {}
        delays = ", ".join(f"{key} {value:.0f}" for key, value in ttfa.items()) or "-"
        found.append(
            f"  {name:>9}: {part['requests']} requests, {part['refused']} refused, first sound "
            f"after ms {delays}; continuous {_percent(part['continuity_ok_share']):.1f} %"
        )
    failed = {k: v for k, v in row["outcomes"].items() if k != "ok"}
    return [*found, *([f"  not whole: {failed}"] if failed else [])]


def plot_served(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """First sound and continuity against load. InputError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plot needs matplotlib; pip install matplotlib") from None
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    upper: Axes
    lower: Axes
    upper, lower = figure.subplots(2, sharex=True)
    rows = sorted(rows, key=lambda row: row["rate"] or row["listeners"])
    load = [row["rate"] or row["listeners"] for row in rows]
    for key in ("p50", "p95", "p99"):
        delays = [(row["ttfa_ms"] or {}).get(key, float("nan")) for row in rows]
        upper.plot(load, delays, marker="o", label=key)
    upper.set(ylabel="first sound after, ms", yscale="log")
    upper.set_title(f"{rows[0]['model']['id']}, {rows[0]['model']['recipe']}, over HTTP")
    refused = [100 * row["refused"] / max(row["requests"], 1) for row in rows]
    continuous = [_percent(row["continuity_ok_share"]) for row in rows]
    lower.plot(load, continuous, marker="o", label="continuous, % of accepted")
    lower.plot(load, refused, marker="o", label="refused, %")
    lower.set(xlabel="requests/s" if rows[0]["rate"] else "listeners at once", ylim=(-5, 105))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, path)


def _percent(share: float | None) -> float:
    return float("nan") if share is None else 100 * share
