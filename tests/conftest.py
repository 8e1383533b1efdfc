"""Fixtures that several rooms share."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from needs import NO_CUDA
from tiny import write_tiny_checkpoint

torch.set_num_threads(1)  # tiny models lose more time to a second thread than they gain
settings.register_profile("quaver", settings(deadline=None))  # machines are shared
settings.load_profile("quaver")


LONGEST = "test_readme.py"  # minutes: begun last, one process would end long after the others


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped and why, the commonest reason first."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons = Counter(skip_reason(report) for report in skipped)
    modules = sum(isinstance(report, pytest.CollectReport) for report in skipped)
    terminalreporter.section("skipped, by reason")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5d}  {reason}")
    if modules:
        terminalreporter.line(f"Whole files among them: {modules}.")


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test or a file was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Every device that the same mathematics must hold on; convolutions in true fp32."""
    if request.param == "cpu":
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip(NO_CUDA)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield torch.device(request.param)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint with random weights; not to be written to."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")
