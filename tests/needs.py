"""What some tests need and a machine may lack, with the words in which a skipped test says so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

NO_CUDA = "this machine has no CUDA GPU"
NO_GPU = f"{NO_CUDA}: `make test-kernels` runs the kernels in Triton's interpreter"
NO_TRITON = "Triton is not installed: `make test-kernels` installs it on Linux"
NO_CHROMIUM = "chromium is not installed: run `make system`"
NO_FLITE = "flite is not installed: run `make system`"
ONLY_GPU = "only a GPU does what this tests, and Triton's interpreter does not"
COARSE = "Triton's interpreter rounds eight-bit floats otherwise than a GPU does"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason=NO_FLITE)
needs_linux = pytest.mark.skipif(
    not Path("/proc/self").is_dir(),
    reason="this machine is not Linux: it has no /proc or /dev/full",
)
needs_posix = pytest.mark.skipif(
    os.name != "posix", reason="this machine is not POSIX: it has no signals, pipes or forks"
)
