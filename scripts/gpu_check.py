"""Run the tests marked `gpu` and write their result to benchmarks/results/.

make gpu-check                  (on a machine with a CUDA device)
python scripts/gpu_check.py -n 8    (what is given goes to pytest: so many processes, with xdist)
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from quaver.bench.machine import write_result

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# Rooms with mathematics that must hold on a GPU; the others' tests need packages that a GPU machine
# may lack.
TESTS = (
    "tests/codecs",
    "tests/families",
    "tests/engine",
    "tests/quant",
    "tests/test_synthesizer.py",
    "tests/test_golden.py",
)


def run_tests(junit: Path) -> int:
    """Run them; returns pytest's exit status."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        *TESTS,
        "-m",
        "gpu",
        f"--junitxml={junit}",
        *sys.argv[1:],
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def read_tests(junit: Path) -> list[dict[str, object]]:
    """Name, outcome and seconds of each test."""
    tests = []
    for case in ET.parse(junit).iter("testcase"):
        outcomes = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        tests.append(
            {
                "test": f"{case.get('classname')}::{case.get('name')}",
                "outcome": outcomes[0] if outcomes else "passed",
                "seconds": float(case.get("time", 0.0)),
            }
        )
    return tests


def main() -> int:
    with TemporaryDirectory() as scratch:
        junit = Path(scratch) / "junit.xml"
        status = run_tests(junit)
        tests = read_tests(junit) if junit.exists() else []
    passed = sum(test["outcome"] == "passed" for test in tests)
    skipped = sum(test["outcome"] == "skipped" for test in tests)
    out = RESULTS / f"gpu-check-{datetime.now(UTC):%Y-%m-%d}.json"
    counts = {"passed": passed, "skipped": skipped, "of": len(tests)}
    write_result(out, {"status": status, **counts, "tests": tests})
    print(f"{passed} of {len(tests)} passed, {skipped} skipped; {out.relative_to(ROOT)}")
    return 0 if status == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
