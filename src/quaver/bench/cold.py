"""Cold start: from the start of a process to its first sample."""

from __future__ import annotations

import subprocess
import sys
import time

from quaver.core.errors import InputError

TEXT = "Hello there."
PAST_HEADER = 256  # bytes of a WAV stream: its header, and some samples


def cold_start(model: str, recipe: str | None, device: str | None) -> float:
    """Seconds until `quaver say`, in a new process, has written its first samples to a pipe.

    InputError with what it said instead, if it could not speak.
    """
    command = [sys.executable, "-m", "quaver", "say", TEXT, "--model", model]
    command += ["--seed", "0", "--out", "-"]
    command += [] if recipe is None else ["--recipe", recipe]
    command += [] if device is None else ["--device", device]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        begun = len(process.stdout.read(PAST_HEADER)) == PAST_HEADER
        seconds = time.perf_counter() - started
        if begun:
            process.kill()
            return seconds
        told = process.stderr.read().decode(errors="replace").strip() or "no sound, and no reason"
    raise InputError(f"a new process could not speak: {told.splitlines()[-1]}")
