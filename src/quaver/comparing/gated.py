"""`quaver quantize --gate`: a checkpoint is kept only if it is shown to sound right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quaver.checkpoints.atomic import refuse_occupied
from quaver.comparing import Comparison, Named, compare
from quaver.comparing.page import write_page
from quaver.comparing.report import write_report
from quaver.core.errors import InputError
from quaver.core.files import scratch_folder, settle
from quaver.quality.gates import overall
from quaver.quality.stats import Verdict
from quaver.quantizing.report import QuantizeReport

PROOF = "quality"  # the comparison's folder in a checkpoint that was kept


@dataclass(frozen=True, slots=True)
class Gated:
    """What was made, what was found, and the folder of the report."""

    made: QuantizeReport
    found: Comparison
    proof: Path

    @property
    def verdict(self) -> Verdict:
        return overall(self.found.outcomes)


def quantize_gated(
    make: Callable[[Path], QuantizeReport],
    model: str,
    out: Path,
    **options: Any,
) -> Gated:
    """Let `make` write a checkpoint of `model`, compare both, and keep it as `out` if all gates
    pass, with its report inside; `options` are those of `compare`. Otherwise only the report is
    kept, beside `out`, under the name of `refused`. InputError if either place is taken.
    """
    refuse_occupied(out)
    if refused(out).exists():
        raise InputError(f"{refused(out)} is there, from an earlier run; move or delete it")
    with scratch_folder(out.absolute().parent) as scratch:
        made, proof = scratch / "made", scratch / "proof"
        report = make(made)
        sides = Named(model, None), Named(str(made), None)
        found = compare(*sides, proof, **options)
        write_report(proof, found)
        write_page(proof, found)
        if overall(found.outcomes) is not Verdict.PASS:
            settle(proof, refused(out))
            return Gated(report, found, refused(out))
        proof.rename(made / PROOF)
        if out.is_dir():
            out.rmdir()  # it is empty
        settle(made, out)
        return Gated(report, found, out / PROOF)


def refused(out: Path) -> Path:
    """Where the report of a checkpoint that was not kept lies."""
    return out.with_name(f"{out.name}-refused")
