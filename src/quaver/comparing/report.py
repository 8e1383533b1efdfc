"""`report.json`: everything that was found, for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quaver.bench.machine import write_result
from quaver.comparing import Comparison
from quaver.quality.finding import Cell
from quaver.quality.gates import overall
from quaver.quality.metrics.metric import NotMeasured

SCHEMA = 1
NAME = "report.json"


def content(found: Comparison) -> dict[str, Any]:
    """The report as plain values; see docs/quality.md for the schema."""
    return {
        "schema": SCHEMA,
        "verdict": overall(found.outcomes).value,
        "setup": found.setup,
        "requirements": [
            {
                "name": outcome.name,
                **asdict(outcome.gate),
                "verdict": outcome.decision.verdict.value,
                "needed": outcome.decision.needed,
                "harm": cell(outcome.harm),
                "allowed": outcome.allowed,
            }
            for outcome in found.outcomes
        ],
        "findings": [
            {
                "metric": each.metric,
                "layer": each.layer.value,
                "unit": each.unit,
                "higher_is_better": each.higher_is_better,
                "judge": each.judge,
                "reference": cell(each.reference),
                "candidate": cell(each.candidate),
                "change": cell(each.change),
                "null": cell(each.null),
            }
            for each in found.findings
        ],
        "by_position": _by_position(found),
        "by_part": [{"part": each.part.name, "kl": cell(each.kl)} for each in found.swaps],
        "culprits": found.culprits,
    }


def write_report(folder: Path, found: Comparison) -> Path:
    """Write `report.json` into `folder`, whole; returns its path."""
    path = folder / NAME
    write_result(path, json.loads(json.dumps(content(found))))
    return path


def cell(value: Cell) -> dict[str, Any]:
    """An estimate, or the reason that there is none."""
    return {"not_measured": value.reason} if isinstance(value, NotMeasured) else asdict(value)


def _by_position(found: Comparison) -> list[dict[str, float]]:
    """KL and top-1 of each position in the frame, over all utterances."""
    rows = []
    for position in zip(*(each.positions for each in found.replays), strict=True):
        total = sum(position[1:], position[0])
        rows.append({"kl": total.kl_nats, "top-1": total.top1, "n": total.count})
    return rows
