"""Environment variables: what each does as it is set, and which do harm."""

import os

import pytest

from quaver.bench.machine import fingerprint
from quaver.cli import doctor
from quaver.core.environment import LONGEST_VALUE, RULES, Level, settings

INFO, WARNING = Level.INFO, Level.WARNING


@pytest.mark.parametrize(
    ("name", "value", "level", "effect"),
    [
        ("CUDA_LAUNCH_BLOCKING", "1", WARNING, "several times slower"),
        ("CUDA_LAUNCH_BLOCKING", "0", INFO, "off, as by default"),
        ("CUDA_VISIBLE_DEVICES", "-1", WARNING, "run on the CPU"),
        ("CUDA_VISIBLE_DEVICES", "2,3", INFO, "Only the GPUs 2,3"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "1", WARNING, "share one queue"),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "32", INFO, "32 hardware queues"),
        ("CUDA_MODULE_LOADING", "EAGER", WARNING, "at the start"),
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8", INFO, "repeat on one GPU"),
        ("NVIDIA_TF32_OVERRIDE", "0", WARNING, "TF32 is off"),
        ("NVIDIA_TF32_OVERRIDE", "1", INFO, "left to each library"),
        ("TORCH_ALLOW_TF32_CPP_CUBLAS_OVERRIDE", "1", WARNING, "not exact"),
        ("TORCH_ALLOW_TF32_CPP_CUBLAS_OVERRIDE", "0", INFO, "off"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", INFO, "segments"),
        ("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync", WARNING, "cudaMallocAsync"),
        ("PYTORCH_ALLOC_CONF", "max_split_size_mb:128", INFO, "allocator"),
        ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1", WARNING, "very slow"),
        ("TRITON_INTERPRET", "1", WARNING, "interpreter"),
        ("TRITON_INTERPRET", "0", INFO, "off"),
        ("TRITON_CACHE_DIR", "/tmp/triton", INFO, "kept in this folder"),
        ("TORCHDYNAMO_DISABLE", "1", INFO, "torch.compile does nothing"),
        ("PYTORCH_JIT", "0", WARNING, "not traced"),
        ("PYTORCH_JIT", "1", INFO, "as by default"),
        ("OMP_NUM_THREADS", "1", INFO, "uses 1 CPU thread at most"),
        ("OMP_NUM_THREADS", "1,2", INFO, "uses 1 CPU thread at most"),
        ("OMP_NUM_THREADS", "100000", WARNING, "more than this machine has"),
        ("OMP_NUM_THREADS", "many", WARNING, "no number of threads"),
        ("OMP_NUM_THREADS", "0", WARNING, "no number of threads"),
        ("OMP_NUM_THREADS", "-3", WARNING, "no number of threads"),
        ("MKL_NUM_THREADS", "1", INFO, "MKL uses 1 "),
        ("OPENBLAS_NUM_THREADS", "1", INFO, "OpenBLAS uses 1 "),
        ("OMP_WAIT_POLICY", "ACTIVE", WARNING, "spin while they wait"),
        ("OMP_WAIT_POLICY", "passive", INFO, "sleep while they wait"),
        ("KMP_BLOCKTIME", "infinite", WARNING, "without end"),
        ("KMP_BLOCKTIME", "0", INFO, "how long"),
        ("KMP_AFFINITY", "compact", INFO, "which cores"),
        ("GOMP_SPINCOUNT", "INFINITY", WARNING, "without end"),
        ("GOMP_CPU_AFFINITY", "0-3", INFO, "which cores"),
        ("ATEN_CPU_CAPABILITY", "default", WARNING, "no vector instructions"),
        ("ATEN_CPU_CAPABILITY", "avx2", INFO, "up to avx2 only"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41", WARNING, "SSE41"),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", INFO, "up to AVX2"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", WARNING, "not exact"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT", INFO, "as fp32"),
        ("MKL_ENABLE_INSTRUCTIONS", "AVX2", INFO, "this set only"),
        ("HF_HOME", "/models", INFO, "this folder"),
        ("HF_HUB_OFFLINE", "1", INFO, "Nothing is downloaded"),
        ("HF_HUB_OFFLINE", "0", INFO, "off"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2", INFO, "jemalloc"),
        ("LD_PRELOAD", "/opt/other.so", INFO, "loaded into every process"),
        ("MALLOC_ARENA_MAX", "2", INFO, "so many heaps"),
        ("MALLOC_TRIM_THRESHOLD_", "1", INFO, "memory allocator"),
        ("PYTHONOPTIMIZE", "1", WARNING, "assertions"),
        ("PYTHONOPTIMIZE", "0", INFO, "off"),
        ("PYTHONMALLOC", "debug", WARNING, "slower"),
        ("PYTHONDEVMODE", "1", WARNING, "slower"),
    ],
)
def test_a_variable_is_told_by_its_value(name, value, level, effect):
    (found,) = settings({name: value, "HOME": "/root"})
    assert (found.name, found.value, found.level) == (name, value, level)
    assert effect in found.effect


def test_every_rule_takes_any_value():
    names = [pattern.replace("*", "X") for pattern in RULES]
    for value in ("0", "1", "-1", "true", "x" * 10_000, ",", "é\x1b[31m", "٣", "1e9"):
        found = settings(dict.fromkeys(names, value))
        assert len(found) == len(names)
        for each in found:
            assert each.effect.endswith(".") and each.effect[0] != " "
            assert "\x1b" not in each.value + each.effect
            assert len(each.value) <= LONGEST_VALUE and len(each.effect) < 2 * LONGEST_VALUE


@pytest.mark.parametrize(
    "environment", [{}, {"HOME": "/", "PATH": "/bin"}, {"OMP_NUM_THREADS": ""}]
)
def test_what_changes_nothing_is_not_told(environment):
    assert settings(environment) == []


def test_a_password_in_an_address_is_not_shown():
    (found,) = settings({"HF_ENDPOINT": "https://me:secret@mirror.example/hub"})
    assert found.value == "https://mirror.example/hub"


def test_doctor_and_results_have_what_is_set(monkeypatch):
    for name in {*os.environ} & {*RULES}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    report = doctor.examine()
    assert [each["name"] for each in report.environment] == [
        "CUDA_LAUNCH_BLOCKING",
        "MALLOC_ARENA_MAX",
    ]
    assert report.environment[0]["level"] == "warning"
    shown = dict(doctor._lines(report))
    assert shown["CUDA_LAUNCH_BLOCKING"].startswith("1: warning: Each GPU kernel")
    assert shown["MALLOC_ARENA_MAX"].startswith("2: glibc")
    assert fingerprint()["environment"] == {"CUDA_LAUNCH_BLOCKING": "1", "MALLOC_ARENA_MAX": "2"}
