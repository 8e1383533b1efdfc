"""Floors, delays and tables of benchmarks, on numbers that are known."""

import json

import pytest

from quaver.bench.floor import Ceilings, StepCost, measure_ceilings
from quaver.bench.measure import Plan, measure, percentiles, summary, text_for
from quaver.bench.streams import Heard, Run, run_streams
from quaver.bench.table import compare, lines, markdown, plot, read_rows
from quaver.core.errors import InputError
from quaver.core.types import StreamStats
from quaver.loading import load

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


def test_ceilings_are_of_the_size_that_is_read():
    found = measure_ceilings("cpu", 10_000_000)
    assert 1e8 < found.read_bytes_per_s < 1e13
    assert 1e8 < found.flops_per_s < 1e15


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


@pytest.mark.parametrize("low_latency", [False, True])
def test_streams_may_begin_a_frame_sooner(tiny_checkpoint, low_latency):
    plan = Plan((1,), 0.6, 1, 0, low_latency=low_latency)
    begun = []

    def loaded(slots):
        voice = load(tiny_checkpoint, "fp32", "cpu", slots=slots)
        told = voice.stream

        def stream(text, **options):
            begun.append(options["low_latency"])
            return told(text, **options)

        voice.stream = stream
        return voice

    row = measure(loaded, plan, 0, None, lambda line: None)[0]
    assert row["low_latency"] is low_latency
    assert set(begun) == {low_latency} and len(begun) == 2


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_lengths_are_refused(tiny_checkpoint, seconds):
    voice = load(tiny_checkpoint, "fp32", "cpu", slots=1)
    with pytest.raises(InputError, match="max_seconds is"):
        voice.stream("Hello.", max_seconds=seconds)


@pytest.mark.parametrize("seconds", [0.1, 5.0, 600.0])
def test_what_is_said_is_one_segment(seconds):
    assert 0 < len(text_for(seconds)) <= 180


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
