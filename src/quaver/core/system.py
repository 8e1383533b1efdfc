"""What Linux says of the machine. On other systems there is nothing to read, and callers know."""

from __future__ import annotations

import math
from pathlib import Path


def colon_file(path: str) -> dict[str, str]:
    """`key : value` lines of a file such as /proc/cpuinfo, the first of each key; or nothing."""
    if not Path(path).is_file():
        return {}
    found: dict[str, str] = {}
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


def cpu_facts() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    return colon_file("/proc/cpuinfo")


def memory_facts(path: str = "/proc/meminfo") -> dict[str, float]:
    """Bytes by name, such as MemTotal and MemAvailable, or VmRSS of /proc/self/status."""
    facts = colon_file(path).items()
    return {key: float(value.split()[0]) * 1024 for key, value in facts if value.endswith("kB")}


def free_memory() -> float:
    """Free bytes of memory; infinite where they cannot be read."""
    return memory_facts().get("MemAvailable", math.inf)
