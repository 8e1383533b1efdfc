"""Environment variables that change speed or results here, and what each does as it is set."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

LONGEST_VALUE = 200  # characters that are shown
_SECRET = re.compile(r"//[^/@\s]+@")  # name and password in an address


class Level(StrEnum):
    """Whether a variable as it is set does harm."""

    INFO = "info"
    WARNING = "warning"  # it makes speech slow, wrong or impossible


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable that is set: its value, its effect in one sentence, and how bad that is."""

    name: str
    value: str
    effect: str
    level: Level


Effect = tuple[Level, str]
Rule = Callable[[str], Effect]


def settings(environment: Mapping[str, str] | None = None) -> list[Setting]:
    """The variables of `environment`, by default the process's own, that change something here,
    by name. Empty values are unset."""
    found = []
    for name, value in sorted((os.environ if environment is None else environment).items()):
        rule = next((rule for pattern, rule in RULES.items() if fnmatchcase(name, pattern)), None)
        if rule is None or not value.strip():
            continue
        shown = _SECRET.sub("//", value.strip())[:LONGEST_VALUE]
        shown = "".join(c if c.isprintable() else "?" for c in shown)
        level, effect = rule(shown)
        found.append(Setting(name, shown, effect, level))
    return found


def _says(effect: str, level: Level = Level.INFO) -> Rule:
    return lambda value: (level, effect)


def _switch(on: Effect, off: str = "It is off, as by default.") -> Rule:
    """A variable that is off when it is 0, false, no or off."""
    return lambda value: (Level.INFO, off) if _off(value) else on


def _off(value: str) -> bool:
    return value.lower() in ("0", "false", "no", "off", "n", "f")


def _warning(effect: str) -> Effect:
    return Level.WARNING, effect


def _threads(library: str) -> Rule:
    def rule(value: str) -> Effect:
        if (
            not value.split(",", maxsplit=1)[0].isdecimal()
            or int(value.split(",", maxsplit=1)[0]) == 0
        ):
            return _warning(f"It is no number of threads, so {library} ignores or refuses it.")
        number = int(value.split(",", maxsplit=1)[0])
        if number > (os.cpu_count() or number):
            return _warning(
                f"{library} uses up to {number} CPU threads, more than this machine has: they wait "
                "for each other, and speech on a CPU is slow."
            )
        noun = "CPU thread" if number == 1 else "CPU threads"
        effect = f"{library} uses {number} {noun} at most; Quaver measures up to that."
        return Level.INFO, effect

    return rule


def _visible(value: str) -> Effect:
    first = value.split(",", maxsplit=1)[0].strip()
    if first in ("-1", "NoDevFiles") or not first:
        return _warning("No GPU can be seen: models run on the CPU.")
    return Level.INFO, f"Only the GPUs {value} can be seen, and cuda:0 is the first of them."


def _capability(value: str) -> Effect:
    if value.lower() == "default":
        return _warning(
            "torch uses no vector instructions on a CPU: speech is several times slower."
        )
    return Level.INFO, (
        f"torch uses CPU instructions up to {value} only; the last bits of speech may differ from "
        "those without it."
    )


def _isa(value: str) -> Effect:
    if value.upper() in ("DEFAULT", "ALL"):
        return Level.INFO, "oneDNN uses all instructions that this CPU has, as by default."
    level = Level.WARNING if value.upper() in ("SSE41", "AVX") else Level.INFO
    return level, f"oneDNN uses CPU instructions up to {value} only: products may be slower."


def _allocator(value: str) -> Effect:
    lowered = value.replace(" ", "").lower()
    if "backend:cudamallocasync" in lowered:
        return _warning(
            "GPU memory comes from cudaMallocAsync, with which recorded steps may hold more; "
            "Quaver is tested with torch's own allocator."
        )
    if "expandable_segments:true" in lowered:
        return Level.INFO, "torch grows its GPU memory in segments: less is lost in pieces."
    return Level.INFO, "It changes how torch's GPU allocator splits and returns memory."


def _wait(value: str) -> Effect:
    if value.lower() == "active":
        return _warning("CPU threads spin while they wait, and slow other processes down.")
    return Level.INFO, "CPU threads sleep while they wait: starting them takes longer."


def _spin(value: str) -> Effect:
    if value.lower() in ("infinite", "infinity"):
        return _warning("CPU threads spin without end while they wait.")
    return Level.INFO, "It sets how long CPU threads spin before they sleep."


def _preload(value: str) -> Effect:
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in value:
            return Level.INFO, f"Host memory comes from {name}: use and speed differ from glibc's."
    return Level.INFO, "Libraries are loaded into every process first: results depend on them too."


def _optimize(value: str) -> Effect:
    if _off(value):
        return Level.INFO, "It is off, as by default."
    return _warning("Python leaves assertions out, and with them checks of Quaver and of torch.")


def _log_level(value: str) -> Effect:
    return Level.INFO, "It makes libraries write more or less to the log; speed changes little."


_DETERMINISM = "cuBLAS uses this workspace: results repeat on one GPU, and products may be slower."
_HUB_OFF = "Nothing is downloaded: a model must be in the cache, a folder or bundled."
_GOMP = "It sets on which cores CPU threads run; threads of two processes may share one core."
# The first pattern that matches counts.
RULES: Mapping[str, Rule] = {
    "CUDA_LAUNCH_BLOCKING": _switch(
        _warning("Each GPU kernel is waited for: speech on a GPU is several times slower.")
    ),
    "CUDA_VISIBLE_DEVICES": _visible,
    "CUDA_DEVICE_ORDER": _says("It sets the order in which GPUs are numbered."),
    "CUDA_DEVICE_MAX_CONNECTIONS": lambda value: (
        _warning("GPU streams share one queue: the codec waits for steps, and chunks come late.")
        if value == "1"
        else (Level.INFO, f"GPU streams share {value} hardware queues.")
    ),
    "CUDA_MODULE_LOADING": lambda value: (
        _warning("All GPU code is loaded at the start: starting takes longer and more GPU memory.")
        if value.upper() == "EAGER"
        else (Level.INFO, "GPU code is loaded when it is first used, as by default.")
    ),
    "CUDA_CACHE_DISABLE": _switch(
        _warning("The driver keeps no compiled GPU code: each start compiles it again.")
    ),
    "CUBLAS_WORKSPACE_CONFIG": _says(_DETERMINISM),
    "CUBLASLT_WORKSPACE_SIZE": _says(
        "It sets cuBLASLt's workspace: speed of GPU products changes."
    ),
    "NVIDIA_TF32_OVERRIDE": lambda value: (
        _warning("TF32 is off in NVIDIA's libraries: the codec on a GPU is slower.")
        if value == "0"
        else (Level.INFO, "TF32 is left to each library, as by default.")
    ),
    "TORCH_ALLOW_TF32_CPP_CUBLAS_OVERRIDE": _switch(
        _warning("fp32 products on a GPU are rounded to TF32: the fp32 recipe is not exact.")
    ),
    "PYTORCH_*ALLOC_CONF": _allocator,
    "PYTORCH_NO_CUDA_MEMORY_CACHING": _switch(
        _warning("torch keeps no GPU memory: each allocation waits for the GPU, and is very slow.")
    ),
    "TRITON_INTERPRET": _switch(
        _warning("Kernels run in Triton's interpreter on the CPU: speech on a GPU is very slow.")
    ),
    "TRITON_CACHE_DIR": _says("Compiled kernels are kept in this folder."),
    "TRITON_ALWAYS_COMPILE": _switch(
        _warning("Kernels are compiled again in every process: each start takes much longer.")
    ),
    "TRITON_DEBUG": _switch(_warning("Kernels check themselves: they are slower.")),
    "TORCHDYNAMO_DISABLE": _switch(
        (
            Level.INFO,
            "torch.compile does nothing; Quaver does not use it, but `bench --baseline` does.",
        )
    ),
    "TORCH_COMPILE_DISABLE": _switch(
        (
            Level.INFO,
            "torch.compile does nothing; Quaver does not use it, but `bench --baseline` does.",
        )
    ),
    "PYTORCH_JIT": lambda value: (
        _warning("Steps of a small model on a CPU are not traced: they take longer.")
        if _off(value)
        else (Level.INFO, "Tracing is on, as by default.")
    ),
    "OMP_NUM_THREADS": _threads("torch"),
    "MKL_NUM_THREADS": _threads("MKL"),
    "OPENBLAS_NUM_THREADS": _threads("OpenBLAS"),
    "VECLIB_MAXIMUM_THREADS": _threads("Accelerate"),
    "NUMEXPR_*": _says("NumExpr follows it; Quaver does not use NumExpr."),
    "OMP_WAIT_POLICY": _wait,
    "KMP_BLOCKTIME": _spin,
    "GOMP_SPINCOUNT": _spin,
    "OMP_PROC_BIND": _says(_GOMP),
    "OMP_PLACES": _says(_GOMP),
    "KMP_AFFINITY": _says(_GOMP),
    "GOMP_CPU_AFFINITY": _says(_GOMP),
    "OMP_DYNAMIC": _says("OpenMP may use fewer CPU threads than it is asked for."),
    "OMP_THREAD_LIMIT": _threads("OpenMP"),
    "MKL_ENABLE_INSTRUCTIONS": _says(
        "MKL uses CPU instructions up to this set only: products in fp32 may be slower."
    ),
    "MKL_CBWR": _says("MKL repeats its bits across CPUs: products in fp32 may be slower."),
    "ATEN_CPU_CAPABILITY": _capability,
    "ONEDNN_MAX_CPU_ISA": _isa,
    "DNNL_MAX_CPU_ISA": _isa,
    "ONEDNN_VERBOSE": _log_level,
    "ONEDNN_DEFAULT_FPMATH_MODE": lambda value: (
        (Level.INFO, "oneDNN computes fp32 as fp32, as by default.")
        if value.upper() == "STRICT"
        else _warning("oneDNN may round fp32 products to fewer bits: fp32 speech is not exact.")
    ),
    "HF_HOME": _says("Downloaded models are kept in this folder."),
    "HF_HUB_CACHE": _says("Downloaded models are kept in this folder."),
    "HUGGINGFACE_HUB_CACHE": _says("Downloaded models are kept in this folder."),
    "HF_HUB_OFFLINE": _switch((Level.INFO, _HUB_OFF)),
    "TRANSFORMERS_OFFLINE": _switch((Level.INFO, _HUB_OFF)),
    "HF_ENDPOINT": _says("Models are downloaded from this address and not from huggingface.co."),
    "LD_PRELOAD": _preload,
    "MALLOC_ARENA_MAX": _says("glibc uses at most so many heaps: less memory, more waiting."),
    "MALLOC_*": _says("It changes glibc's memory allocator: use of host memory differs."),
    "PYTHONOPTIMIZE": _optimize,
    "PYTHONMALLOC": lambda value: (
        _warning("Python checks each allocation: everything is slower.")
        if "debug" in value
        else (Level.INFO, "Python takes its memory from another allocator.")
    ),
    "PYTHONDEVMODE": _switch(_warning("Python runs its development checks: everything is slower.")),
    "PYTHONFAULTHANDLER": _switch(
        (Level.INFO, "A crash prints where Python was; speed is the same.")
    ),
    "PYTHONHASHSEED": _says("It fixes the order of Python's sets; speech does not depend on it."),
}
