"""What Prometheus is told, under the names that other speech servers use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quaver.bench.streams import FORGIVEN, Heard
from quaver.core.types import FinishReason

DELAYS = (0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)
RATES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 2, 4)
LENGTHS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
LABELS = ("recipe",)


class Metrics:
    """Of one service; nothing global."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.ttfa = self._histogram("audio_ttfp_seconds", "Request to first audible sample", DELAYS)
        self.rtf = self._histogram("audio_rtf", "Seconds of work for a second of sound", RATES)
        self.gaps = self._histogram("audio_chunk_interval_seconds", "Between chunks", DELAYS)
        self.underrun = self._histogram(
            "audio_underrun_seconds", "How late the latest chunk was for a listener", DELAYS
        )
        self.queue = self._histogram("request_queue_time_seconds", "Waiting for a slot", DELAYS)
        self.latency = self._histogram("e2e_request_latency_seconds", "Whole requests", LENGTHS)
        self.duration = self._histogram("audio_duration_seconds", "Sound made", LENGTHS)
        self.frames = self._counter("audio_frames", "Codec frames made")
        self.continuous = self._counter(
            "audio_continuity_ok", "Streams whose listener never waited", "threshold_ms"
        )
        self.done = self._counter("requests_success", "Whole", "finished_reason")
        self.failed = self._counter("requests_failed", "Accepted, and not whole", "reason")
        self.refused = self._counter("requests_refused", "Not accepted", "reason")
        self._client_errors = Counter(
            "quaver:client_errors",
            "What clients did wrong below any request",
            ("kind",),
            registry=self._registry,
        )

    def count_client_error(self, kind: str) -> None:
        """Count a connection or a message that broke a rule; it is not logged."""
        self._client_errors.labels(kind).inc()

    def hear(self, recipe: str, heard: Heard) -> None:
        """Count what a listener heard, to the end or not."""
        if heard.first_audible is not None:
            self.ttfa.labels(recipe).observe(heard.first_audible)
        for gap in heard.gaps:
            self.gaps.labels(recipe).observe(gap)
        if heard.arrivals:
            self.underrun.labels(recipe).observe(max(0.0, heard.lateness))

    def finish(self, recipe: str, heard: Heard, stats: Mapping[str, Any], seconds: float) -> None:
        """Count a stream that is whole, after so many seconds, as ended by what ended its segments,
        and by their own end only if nothing else ended any."""
        if heard.lateness <= FORGIVEN:
            self.continuous.labels(recipe, f"{1000 * FORGIVEN:.0f}").inc()
        if stats["rtf"] is not None:
            self.rtf.labels(recipe).observe(stats["rtf"])
        self.queue.labels(recipe).observe(stats["queue_seconds"])
        self.duration.labels(recipe).observe(stats["audio_seconds"])
        self.latency.labels(recipe).observe(seconds)
        self.frames.labels(recipe).inc(stats["frames"])
        cut = [reason for reason in stats["finish_reasons"] if reason != FinishReason.STOP]
        self.done.labels(recipe, cut[0] if cut else FinishReason.STOP.value).inc()

    def watch(self, state: Callable[[], Iterable[tuple[str, Mapping[str, float | None]]]]) -> None:
        """`state` gives each recipe's numbers whenever somebody asks."""
        self._registry.register(_Now(state))

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"quaver:{name}", about, LABELS, buckets=buckets, registry=self._registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"quaver:{name}", about, (*LABELS, *labels), registry=self._registry)


GAUGES = {
    "num_requests_running": "Streams in a slot",
    "num_requests_waiting": "Streams that wait for a slot",
    "num_requests_accepted": "Streams that have not ended",
    "engine_ready": "1 where the engine takes requests",
    "gpu_memory_bytes": "Held by the engine process",
}


class _Now(Collector):
    """Numbers as they are when they are asked for."""

    def __init__(
        self, state: Callable[[], Iterable[tuple[str, Mapping[str, float | None]]]]
    ) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        gauges = {n: GaugeMetricFamily(f"quaver:{n}", a, labels=LABELS) for n, a in GAUGES.items()}
        restarts = CounterMetricFamily(
            "quaver:engine_restarts", "Engines started again", labels=LABELS
        )
        for recipe, numbers in self._state():
            restarts.add_metric([recipe], numbers["restarts"] or 0)
            for name, gauge in gauges.items():
                if (value := numbers.get(name)) is not None:
                    gauge.add_metric([recipe], value)
        return [*gauges.values(), restarts]
