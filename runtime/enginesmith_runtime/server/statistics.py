"""What a model has done, counted where it happens and read by ModelStatistics and by Prometheus."""

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["BUCKETS_SECONDS", "BatchTotals", "Histogram", "ModelStatistics", "RunTimes", "Snapshot", "Total"]

BUCKETS_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histograms: from a small model's run to a queue that is too long for any request."""

_NS: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """How long the parts of one request took, in nanoseconds."""

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int

    @property
    def whole(self) -> int:
        """From the moment that the request was decoded to its encoded answer."""
        return self.queue + self.compute_input + self.compute_infer + self.compute_output


@dataclass(slots=True)
class Total:
    """How often, and how long in all (nanoseconds)."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, the last one without an upper bound; the sum is in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    sum_seconds: float = 0.0

    def observe(self, ns: int) -> None:
        """Count one duration."""
        seconds = ns * _NS
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, count so far) as Prometheus wants them."""
        bounds = [*map(str, BUCKETS_SECONDS), "+Inf"]
        running = 0.0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(bounds, self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return buckets


@dataclass(slots=True)
class BatchTotals:
    """Totals of the runs with one batch size."""

    compute_input: Total = field(default_factory=Total)
    compute_infer: Total = field(default_factory=Total)
    compute_output: Total = field(default_factory=Total)


@dataclass(slots=True)
class Snapshot:
    """All counters of one model.

    Attributes:
        requests: by outcome; None for success.
        failures: by `ProtocolError.reason`.
    """

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    batches: dict[int, BatchTotals] = field(default_factory=dict)
    requests: dict[Code | None, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    queue_histogram: Histogram = field(default_factory=Histogram)
    compute_histogram: Histogram = field(default_factory=Histogram)


class ModelStatistics:
    """The counters of one model. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters = Snapshot()

    def record_success(self, times: RunTimes, batch: int) -> None:
        """Count one answered request of `batch` inferences."""
        with self._lock:
            counters = self._counters
            counters.last_inference_ms = time.time_ns() // 1_000_000
            counters.inference_count += batch
            counters.execution_count += 1
            counters.success.add(times.whole)
            counters.queue.add(times.queue)
            totals = counters.batches.setdefault(batch, BatchTotals())
            totals.compute_input.add(times.compute_input)
            totals.compute_infer.add(times.compute_infer)
            totals.compute_output.add(times.compute_output)
            counters.requests[None] = counters.requests.get(None, 0) + 1
            counters.queue_histogram.observe(times.queue)
            counters.compute_histogram.observe(times.compute_infer)

    def record_failure(self, error: ProtocolError, ns: int) -> None:
        """Count one refused or failed request."""
        with self._lock:
            counters = self._counters
            counters.fail.add(ns)
            counters.requests[error.code] = counters.requests.get(error.code, 0) + 1
            counters.failures[error.reason] = counters.failures.get(error.reason, 0) + 1

    def read(self) -> "Snapshot":
        """Return the live counters; a reader may see one request half counted, and never a wrong total later."""
        return self._counters
