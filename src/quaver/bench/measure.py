"""One row a number of streams: speed beside its floor, delays, gaps, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from quaver.bench.floor import Ceilings, StepCost, formats_used, measure_ceilings
from quaver.bench.memory import host_bytes, peak_bytes, tensor_bytes
from quaver.bench.streams import Run, run_streams
from quaver.core.types import FinishReason

if TYPE_CHECKING:
    from quaver.core.protocols import Synthesizer

SENTENCE = "The old man walked slowly along the river. "
COMFORTABLE = 180  # characters: one segment of every model
LATE = 1e-3  # s: less is the clock
WARM_UPS = {"cpu": 1, "cuda": 3}  # on a GPU what is recorded ran as it is before


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    streams: tuple[int, ...]
    seconds: float  # of sound, of each stream, at most
    repeats: int
    seed: int
    text: str | None = None  # what each says, if not something that takes about as long
    low_latency: bool = False
    lengths: tuple[int, ...] = ()  # characters of texts that are spoken whole, besides


Keep = Callable[[str, Run], None]  # takes a run with its sound, and a name for it


def text_of(characters: int) -> str:
    """A text of exactly so many characters, of whole words but for the last."""
    count = -(-characters // len(SENTENCE))
    start = (SENTENCE * count)[: characters - 1].rstrip()
    return start + "." * (characters - len(start)) if characters > 1 else "I"


def text_for(seconds: float) -> str:
    """Something to say that takes about as long, as far as one segment goes: some 12 s."""
    count = max(1, min(round(seconds * 16 / len(SENTENCE)) + 1, COMFORTABLE // len(SENTENCE)))
    return (SENTENCE * count).strip()


def measure(
    load: Callable[[int], Synthesizer],
    plan: Plan,
    gpu: int,
    gpu_before: int | None,
    progress: Callable[[str], None],
    keep: Keep | None = None,
) -> list[dict[str, Any]]:
    """Rows for `plan`. `load` gives a synthesizer with so many slots; `gpu_before` is what the
    driver had given out of the GPU number `gpu` before this process. `keep` is given every run but
    those that warm up, after it was measured."""
    rows: list[dict[str, Any]] = []
    ceilings: Ceilings | None = None
    for count in plan.streams:
        progress(f"{count} streams: loading")
        voice = load(count)
        facts = voice.info()
        cost = StepCost(facts["step_bytes"], facts["step_weights"], facts["position_bytes"])
        device = facts["device"]
        loading = _peak_gb(device, gpu, gpu_before)
        ceilings = ceilings or measure_ceilings(
            device, cost.weight_bytes, formats_used(facts["recipe"])
        )
        _forget(device)  # what loading took, and the ceilings
        text = text_for(plan.seconds) if plan.text is None else plan.text
        progress(f"{count} streams: warming up")
        # as long as a run: a recorded step has a shape for each range of lengths
        for _ in range(WARM_UPS[device.partition(":")[0]]):
            run_streams(voice, text, plan.seconds, range(count), plan.low_latency)
        runs = _runs(voice, text, plan.seconds, plan, count, progress, keep, "")
        row = {
            "shape": facts["model"],
            "recipe": facts["recipe"],
            "device": device,
            "low_latency": plan.low_latency,
            "weights_gb": facts["bytes"] / 1e9,
            "threads": voice.info()["threads"],
            **summary(runs, cost, ceilings),
            **text_speed(runs, text),
        }
        if device.startswith("cuda"):
            speaking = _peak_gb(device, gpu, gpu_before)
            row |= {"gpu_peak_gb": speaking, "gpu_loading_gb": loading}
            row |= {f"gpu_{name}_gb": size / 1e9 for name, size in tensor_bytes(gpu).items()}
        host = host_bytes().items()
        row |= {f"{name}_gb": None if size is None else size / 1e9 for name, size in host}
        row["lengths"] = [
            _by_length(voice, length, plan, count, progress, keep) for length in plan.lengths
        ]
        rows.append(row)
        del voice
        _forget(device)
    return rows


def _runs(
    voice: Synthesizer,
    text: str,
    seconds: float | None,
    plan: Plan,
    count: int,
    progress: Callable[[str], None],
    keep: Keep | None,
    name: str,
) -> list[Run]:
    """Runs of `count` streams with seeds of their own, whose sound is let go once it was kept."""
    runs = []
    for repeat in range(plan.repeats):
        progress(f"{count} streams{name}: run {repeat + 1} of {plan.repeats}")
        first = plan.seed + repeat * count
        seeds = range(first, first + count)
        run = run_streams(voice, text, seconds, seeds, plan.low_latency, keep is not None)
        if keep is not None:
            keep(f"streams-{count}{name.replace(' ', '-')}-run-{repeat + 1}", run)
            for each in run.heard:
                each.sound.clear()
        runs.append(run)
    return runs


def _by_length(
    voice: Synthesizer,
    length: int,
    plan: Plan,
    count: int,
    progress: Callable[[str], None],
    keep: Keep | None,
) -> dict[str, Any]:
    """First sound and speed of a text of `length` characters, spoken to its end."""
    text = text_of(length)
    runs = _runs(voice, text, None, plan, count, progress, keep, f" chars-{length}")
    heard = [each for run in runs for each in run.heard]
    delays = [1e3 * each.first_audible for each in heard if each.first_audible is not None]
    sound = sum(run.audio_seconds for run in runs)
    return {
        "characters": length,
        "words": len(text.split()),
        "ttfa_ms": percentiles(delays),
        "rtf": sum(run.seconds for run in runs) * count / sound if sound else None,
        "sound_s": sound / len(heard),
        **text_speed(runs, text),
    }


def text_speed(runs: Sequence[Run], text: str) -> dict[str, float | None]:
    """Characters and words of text that all streams together speak in a second of the machine's
    time; None if a stream was cut off before the end of its text."""
    reasons = {reason for run in runs for each in run.heard for reason in each.stats.finish_reasons}
    whole = reasons == {FinishReason.STOP}
    spoken = sum(len(run.heard) for run in runs) / sum(run.seconds for run in runs)
    return {
        "characters_per_s": len(text) * spoken if whole else None,
        "words_per_s": len(text.split()) * spoken if whole else None,
    }


def summary(runs: Sequence[Run], cost: StepCost, ceilings: Ceilings) -> dict[str, Any]:
    """Runs of the same streams, in numbers."""
    count = len(runs[0].heard)
    heard = [each for run in runs for each in run.heard]
    speeds = [run.tokens / run.seconds / count for run in runs]
    live = mean(each.stats.prompt_tokens + each.stats.tokens / 2 for each in heard)
    floor = cost.tokens_per_second(count, live, ceilings)
    rtf = median(run.seconds * count / run.audio_seconds for run in runs)
    delays = [1e3 * each.first_audible for each in heard if each.first_audible is not None]
    gaps = [1e3 * gap for each in heard for gap in each.gaps]
    return {
        "streams": count,
        "tokens_per_s_per_stream": median(speeds),
        "spread": (max(speeds) - min(speeds)) / median(speeds),
        "floor_tokens_per_s": floor,
        "real_time_tokens_per_s": sum(r.tokens for r in runs) / sum(r.audio_seconds for r in runs),
        "share_of_floor": median(speeds) / floor,
        "rtf": rtf,
        "rtfx": 1 / rtf,
        "ttfa_ms": percentiles(delays),
        "gap_ms": percentiles(gaps),
        "underrun_free_share": mean(each.lateness <= LATE for each in heard),
        "latest_ms": 1e3 * max(each.lateness for each in heard),
        "host_cpu": median(run.cpu_seconds / run.seconds for run in runs),
        "prompt_tokens": median(each.stats.prompt_tokens for each in heard),
        "tokens": median(each.stats.tokens for each in heard),
        "step_gb": cost.bytes(count, live) / 1e9,
        "step_gflop": cost.flops(count) / 1e9,
        "read_gb_per_s": ceilings.read_bytes_per_s / 1e9,
        "gflop_per_s": ceilings.flops_per_s / 1e9,
    }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """The median and the tail, the next larger value where there is none between."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{p}": ordered[min(-(-p * len(ordered) // 100) - 1, last)] for p in (50, 95, 99)}


def _peak_gb(device: str, gpu: int, before: int | None) -> float | None:
    """The most that this process has held since it last forgot."""
    peak = peak_bytes(before, gpu) if device.startswith("cuda") else None
    return None if peak is None else peak / 1e9


def _forget(device: str) -> None:
    """Let memory go that nothing uses, and count anew."""
    if device.startswith("cuda"):
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
