"""Memory of this whole process: on the host, and on a GPU with its driver and libraries."""

from __future__ import annotations

import shutil
import subprocess

from quaver.core.system import memory_facts

QUERY = ("--query-gpu=memory.used", "--format=csv,noheader,nounits")


def driver_bytes(index: int) -> int | None:
    """What a GPU's driver has given out, to whomever; asked without becoming one of them. None
    where its tool is missing or has no answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    done = subprocess.run(
        [tool, *QUERY, f"--id={index}"], capture_output=True, text=True, check=False, timeout=60
    )
    number = done.stdout.strip()
    return int(number) * 1024**2 if done.returncode == 0 and number.isdigit() else None


def peak_bytes(before: int | None, index: int) -> int | None:
    """The most that this process has held, where it held nothing when the driver said `before`."""
    import torch

    now = driver_bytes(index)
    if before is None or now is None:
        return None
    beside_tensors = now - before - torch.cuda.memory_reserved(index)
    return torch.cuda.max_memory_reserved(index) + max(beside_tensors, 0)


def host_bytes() -> dict[str, float | None]:
    """Host memory that this process holds in RAM now, and the most since it began; None where the
    system does not say."""
    facts = memory_facts("/proc/self/status")
    return {"rss": facts.get("VmRSS"), "rss_peak": facts.get("VmHWM")}


def tensor_bytes(index: int) -> dict[str, float]:
    """The most GPU memory that tensors had since the last reset (allocated), and that torch held
    for them (reserved)."""
    import torch

    return {
        "allocated": float(torch.cuda.max_memory_allocated(index)),
        "reserved": float(torch.cuda.max_memory_reserved(index)),
    }
