"""Floors, delays and tables of benchmarks, on numbers that are known."""

import json

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from quaver.bench import floor
from quaver.bench.floor import (
    LEAST_BYTES,
    ROWS,
    SIDE,
    Ceilings,
    StepCost,
    formats_used,
    measure_ceilings,
)
from quaver.bench.measure import Plan, measure, percentiles, summary, text_for, text_of, text_speed
from quaver.bench.memory import host_bytes
from quaver.bench.streams import Heard, Run, run_streams
from quaver.bench.table import compare, lines, markdown, plot, read_rows
from quaver.core.errors import InputError
from quaver.core.types import FinishReason, StreamStats
from quaver.loading import load
from quaver.precision import Format

COST = StepCost(weight_bytes=3_000_000_000, weights=3_000_000_000, position_bytes=60_000)
DEVICE = Ceilings(read_bytes_per_s=4e12, flops_per_s=600e12)


def heard(arrivals, samples, tokens=700, audio=8.0):
    stats = StreamStats(prompt_tokens=40, tokens=tokens, audio_seconds=audio)
    return Heard(stats, 24_000, list(arrivals), list(samples), arrivals[0])


def row(recipe="fp8", streams=1, speed=900.0, spread=0.01, **more):
    runs = [Run((heard([0.1, 0.2], [2048, 2048]),) * streams, 700 / speed, 0.1)]
    made = summary(runs, COST, DEVICE)
    named = {"shape": "orpheus-3b", "recipe": recipe, "device": "cuda:0"}
    return named | made | {"spread": spread} | more


def test_one_stream_waits_for_weights_and_many_for_arithmetic():
    assert COST.tokens_per_second(1, 0, DEVICE) == pytest.approx(4e12 / 3e9)
    assert COST.tokens_per_second(1, 1000, DEVICE) == pytest.approx(4e12 / 3.06e9)
    assert COST.tokens_per_second(1000, 0, DEVICE) == pytest.approx(600e12 / 6e12)


def test_a_model_tells_what_a_step_costs(tiny_checkpoint):
    voice = load(tiny_checkpoint, "fp32", "cpu", slots=1)
    facts = voice.info()
    assert facts["step_bytes"] > facts["step_weights"] * 4  # norms are read, and not multiplied by
    assert facts["step_bytes"] < facts["step_weights"] * 4 * 1.1
    assert facts["position_bytes"] * 4096 == facts["cache_bytes"]


class Operations(TorchDispatchMode):
    """Operations that torch runs, with the dtype of the first tensor and the bytes of all."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        tensors = [each for each in given if isinstance(each, torch.Tensor)]
        if tensors:
            name = operation.overloadpacket.__name__
            self.seen.append((name, tensors[0].dtype, sum(each.nbytes for each in tensors)))
        return operation(*given, **(options or {}))


def timed(monkeypatch, seconds=2.0):
    """Operations of each action that is timed; all take `seconds`."""
    actions = []

    def run(action, device):
        with Operations() as operations:
            action()
        actions.append(operations.seen)
        return seconds

    monkeypatch.setattr(floor, "_seconds", run)
    return actions


@pytest.mark.parametrize("size", [5_000_000, 10_000_000, 80_000_000])
def test_ceilings_are_of_the_size_that_is_read(monkeypatch, size):
    actions = timed(monkeypatch)
    found = measure_ceilings("cpu", size, [Format.INT8])
    reads = [sum(each[2] for each in seen) for seen in actions if seen[0][0] == "amax"]
    assert reads and all(read == pytest.approx(size, abs=4) for read in reads)
    assert found.read_bytes_per_s == pytest.approx(size / 2.0, abs=4)
    products = [seen for seen in actions if seen[0][0] == "_weight_int8pack_mm"]
    weights = SIDE["cpu"] ** 2
    assert {len(seen) for seen in products} == {size // weights}, "weights of that size in all"
    square, rows = 2.0 * SIDE["cpu"] ** 3, 2.0 * max(ROWS) * (size // weights) * weights
    assert found.flops_per_s == pytest.approx(max(square, rows) / 2.0)


def test_a_small_model_is_not_timed_on_nothing(monkeypatch):
    timed(monkeypatch)
    assert measure_ceilings("cpu", 1000).read_bytes_per_s == LEAST_BYTES / 2.0


@pytest.mark.parametrize(
    ("recipe", "products"),
    [
        ("fp32", {("mm", torch.float32)}),
        ("bf16", {("mm", torch.bfloat16)}),
        ("fp16", {("mm", torch.float16)}),
        ("int8", {("mm", torch.bfloat16), ("_weight_int8pack_mm", torch.bfloat16)}),
        ("int8-dynamic", {("mm", torch.bfloat16), ("_weight_int8pack_mm", torch.bfloat16)}),
        ("nf4", {("mm", torch.bfloat16)}),  # unpacked when it is loaded
        ("int8,head=bf16", {("mm", torch.bfloat16), ("_weight_int8pack_mm", torch.bfloat16)}),
    ],
)
def test_ceilings_are_measured_in_the_arithmetic_of_the_recipe(monkeypatch, recipe, products):
    """An emulated product of another format would be far below what the recipe does."""
    actions = timed(monkeypatch)
    measure_ceilings("cpu", 5_000_000, formats_used(recipe))
    used = {each[:2] for seen in actions for each in seen}
    kinds = {each for each in used if each[0] in ("mm", "addmm", "_weight_int8pack_mm")}
    assert kinds == products


def test_a_ceiling_is_the_best_of_what_was_tried(monkeypatch):
    """With any number of threads and by any product: whichever is faster raises a ceiling."""
    threads = []

    def ceilings(fast):
        threads.clear()

        def run(action, device):
            threads.append(torch.get_num_threads())
            return 1.0 if len(threads) - 1 == fast else 10.0

        monkeypatch.setattr(floor, "_seconds", run)
        return measure_ceilings("cpu", 10_000_000, [Format.FP32])

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        slow = ceilings(None)
        assert set(threads) == {1, 2}
        for fast in range(len(threads)):
            found = ceilings(fast)
            raised = (
                found.read_bytes_per_s / slow.read_bytes_per_s,
                found.flops_per_s / slow.flops_per_s,
            )
            assert min(raised) >= 1 and max(raised) > 2, fast
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arrivals", "late"),
    [
        ([0.0, 0.9, 1.9], -0.1),  # a second each: always in time
        ([0.5, 1.7, 2.5], 0.2),  # the second is late, and moves what follows
        ([0.0, 3.0, 4.5], 2.0),
        ([0.0], 0.0),
    ],
)
def test_a_listener_waits_for_late_chunks(arrivals, late):
    assert heard(arrivals, [24_000] * len(arrivals)).lateness == pytest.approx(late)


def test_percentiles_are_values_that_occurred():
    assert percentiles(range(1, 101)) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([]) is None


def test_a_summary_counts_what_every_stream_got():
    streams = (heard([0.1, 0.3], [2048] * 2), heard([0.2, 9.0], [2048] * 2))
    found = summary([Run(streams, 10.0, 5.0), Run(streams, 5.0, 5.0)], COST, DEVICE)
    assert found["streams"] == 2
    assert found["tokens_per_s_per_stream"] == pytest.approx((70 + 140) / 2)
    assert found["rtf"] == pytest.approx((10 / 8 + 5 / 8) / 2)
    assert found["ttfa_ms"] == {"p50": 100.0, "p95": 200.0, "p99": 200.0}
    assert found["underrun_free_share"] == 0.0
    assert found["step_gb"] == pytest.approx((3e9 + 2 * (40 + 350) * 60_000) / 1e9)
    assert found["real_time_tokens_per_s"] == pytest.approx(700 / 8)
    assert found["share_of_floor"] == pytest.approx(105 / found["floor_tokens_per_s"])


def test_streams_are_heard_as_they_come(tiny_checkpoint):
    voice = load(tiny_checkpoint, "fp32", "cpu", slots=2)
    run = run_streams(voice, "Hello there, all of you.", 0.6, [1, 2, 3])
    alone = voice.generate("Hello there, all of you.", seed=2, max_seconds=0.6)
    assert len(run.heard) == 3
    assert sum(run.heard[1].samples) == len(alone.samples)
    assert all(max(each.arrivals) <= run.seconds for each in run.heard)
    assert all(0.6 <= each.stats.audio_seconds <= 0.7 for each in run.heard)
    assert run.tokens == sum(each.stats.tokens for each in run.heard) > 0


@pytest.mark.parametrize(("low_latency", "frames"), [(False, 3), (True, 2)])
def test_streams_may_begin_a_frame_sooner(tiny_checkpoint, low_latency, frames):
    plan = Plan((1,), 0.6, 1, 0, low_latency=low_latency)
    steps, begun = [], []

    def loaded(slots):
        voice = load(tiny_checkpoint, "fp32", "cpu", slots=slots)
        told, advance = voice.stream, voice.advance

        def stream(text, **options):
            steps.clear()
            made = told(text, **options)
            poll, heard = made.poll, []

            def first():
                chunk = poll()
                if chunk is not None and not heard:
                    heard.append(chunk)
                    begun.append(len(steps))
                return chunk

            made.poll = first
            return made

        def step():
            steps.append(None)
            advance()

        voice.stream, voice.advance = stream, step
        return voice

    row = measure(loaded, plan, 0, None, lambda line: None)[0]
    assert row["low_latency"] is low_latency
    assert begun == [frames, frames], "frames made before the first sound, warm-up and run"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_lengths_are_refused(tiny_checkpoint, seconds):
    voice = load(tiny_checkpoint, "fp32", "cpu", slots=1)
    with pytest.raises(InputError, match="max_seconds is"):
        voice.stream("Hello.", max_seconds=seconds)


@pytest.mark.parametrize("seconds", [0.1, 5.0, 600.0])
def test_what_is_said_is_one_segment(seconds):
    assert 0 < len(text_for(seconds)) <= 180


@pytest.mark.parametrize("length", [1, 2, 5, 15, 44, 45, 75, 250, 3000])
def test_a_text_has_the_length_that_was_asked_for(length):
    text = text_of(length)
    assert len(text) == length and text == text.strip()
    assert text[0].isalpha() and " ." not in text


def spoken(*reasons):
    each = heard([0.1], [2048])
    each.stats.finish_reasons = list(reasons)
    return each


@pytest.mark.parametrize(
    ("runs", "characters"),
    [
        ([(FinishReason.STOP,), (FinishReason.STOP,)], 2 * 2 * 10 / (4.0 + 4.0)),
        ([(FinishReason.STOP, FinishReason.STOP)], 2 * 10 / 4.0),
        ([(FinishReason.STOP,), (FinishReason.LENGTH,)], None),
        ([(FinishReason.STOP, FinishReason.SILENCE)], None),
    ],
)
def test_text_a_second_counts_whole_texts_of_all_streams(runs, characters):
    found = text_speed([Run((spoken(*each),) * 2, 4.0, 1.0) for each in runs], "Ten chars.")
    assert found["characters_per_s"] == characters
    assert found["words_per_s"] == (None if characters is None else characters * 2 / 10)


def test_host_memory_is_this_process():
    before = host_bytes()
    block = np.ones(25_000_000)  # 200 MB
    after = host_bytes()
    if before["rss"] is None:
        pytest.skip("this system does not say")
    assert after["rss"] - before["rss"] > 0.7 * block.nbytes
    del block
    # the kernel counts both in batches
    assert host_bytes()["rss_peak"] > 0.95 * after["rss"]


def test_lengths_and_memory_are_told():
    length = {"characters": 15, "words": 3, "ttfa_ms": {"p50": 12.0}, "rtf": 0.5, "sound_s": 1.5}
    length |= {"characters_per_s": 20.0, "words_per_s": 4.0}
    cut = length | {"characters": 75, "characters_per_s": None, "words_per_s": None, "rtf": None}
    memory = {"rss_gb": 1.5, "rss_peak_gb": 2.5, "gpu_allocated_gb": 3.5, "gpu_reserved_gb": 4.5}
    one = row(**memory, lengths=[length, cut], characters_per_s=40.0, words_per_s=8.0)
    told = "\n".join(lines(one))
    assert "3.50 GB allocated, 4.50 GB reserved" in told and "1.50 GB, at most 2.50" in told
    assert "15 characters: first sound after 12.0 ms, RTF 0.500, 1.5 s of sound; 4.0 words" in told
    assert "75 characters" in told and "cut off before its end" in told
    assert "8.0 words and 40 characters of text a second" in told
    table = markdown([one]).splitlines()
    assert table[-2:] == [
        "| `fp8` | 1 | 15 | 12.0 | 0.500 | 4.0 |",
        "| `fp8` | 1 | 75 | 12.0 | - | - |",
    ]


def test_a_row_is_told_with_its_floor():
    told = "\n".join(lines(row(baseline={"name": "others", "tokens_per_s": 200.0})))
    assert "floor 1," in told and "measured 900.0" in told and "4.50 x" in told
    assert "1 stream on" in told and "2 streams on" in "\n".join(lines(row(streams=2)))
    assert "GPU memory" not in told
    assert "4.00 GB" in "\n".join(lines(row(gpu_peak_gb=4.0)))


def test_a_table_has_a_line_a_row():
    table = markdown([row(), row("bf16", 64, 300.0)]).splitlines()
    assert len(table) == 4
    assert {line.count("|") for line in table} == {table[0].count("|")}


@pytest.mark.parametrize("name", ["speed.png", "speed.svg"])
def test_a_plot_is_a_picture(tmp_path, name):
    plot([row(), row(streams=8, speed=500.0), row("bf16", 1, 400.0)], tmp_path / name)
    start = (tmp_path / name).read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" or start.startswith(b"<?xml")


def test_two_results_differ_by_more_than_their_noise():
    before = [row(speed=500.0), row("bf16", speed=300.0, spread=0.2), row("int8")]
    after = [row(speed=520.0), row("bf16", speed=330.0), row("int4")]
    found = compare(before, after)
    assert [each.split()[0] for each in found] == ["faster", "same"]
    assert compare(after, before)[0].startswith("slower")
    with pytest.raises(InputError, match="in common"):
        compare(before, [row("nf4")])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"benchmark": [{"shape": 1}]}', "null"])
def test_what_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match="is no result"):
        read_rows(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot read"):
        read_rows(tmp_path / "b.json")


def test_rows_survive_a_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"benchmark": [row()]}))
    assert read_rows(tmp_path / "a.json") == [row()]
