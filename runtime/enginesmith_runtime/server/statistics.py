"""Counters of a model, which ModelStatistics and Prometheus read."""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["BUCKETS_SECONDS", "ComputeTotals", "Histogram", "ModelStatistics", "RunTimes", "Snapshot", "Total"]

BUCKETS_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histograms, from the run of a small model to the wait in an overlong queue."""

_NS: Final = 1e-9
_BUCKETS_NS: Final = tuple(round(bound / _NS) for bound in BUCKETS_SECONDS)


_MOST_UNCOUNTED: Final = 256
"""Largest number of runs that are not yet counted."""


class RunTimes(NamedTuple):
    """Durations of the parts of one request in nanoseconds.

    Together they cover the time from the decoded request to the encoded response.
    """

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int


@dataclass(slots=True)
class Total:
    """Number of events and their total duration in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Add `count` events that took `ns` together."""
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, the last one without an upper bound; the sum is in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    sum_seconds: float = 0.0

    def observe(self, durations_ns: Sequence[int]) -> None:
        """Count durations."""
        for ns in durations_ns:
            self.counts[bisect_left(_BUCKETS_NS, ns)] += 1
        self.sum_seconds += sum(durations_ns) * _NS

    def cumulative(self) -> list[tuple[str, float]]:
        """Return pairs of upper bound and cumulative count, as Prometheus needs them."""
        bounds = [*map(str, BUCKETS_SECONDS), "+Inf"]
        running = 0.0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(bounds, self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        return buckets


@dataclass(slots=True)
class ComputeTotals:
    """Number of runs and the total duration of each part."""

    compute_input: Total = field(default_factory=Total)
    compute_infer: Total = field(default_factory=Total)
    compute_output: Total = field(default_factory=Total)

    def add(self, times: Sequence[RunTimes]) -> None:
        """Add runs."""
        self.compute_input.add(sum([one.compute_input for one in times]), len(times))
        self.compute_infer.add(sum([one.compute_infer for one in times]), len(times))
        self.compute_output.add(sum([one.compute_output for one in times]), len(times))


@dataclass(slots=True)
class Snapshot:
    """All counters of one model.

    Attributes:
        cache_hit: Requests that were answered from the cache.
        cache_miss: Requests that were not found in the cache, if there is one, with the time of the lookup.
        execution_count: Runs of the engine. Joined requests share a run.
        compute: Times of requests. Each request of a joined run has the whole time of the run.
        batches: Times of runs, for each number of inferences.
        requests: Number of requests by outcome; None stands for success.
        failures: Number of failed requests by `ProtocolError.reason`.
    """

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    cache_hit: Total = field(default_factory=Total)
    cache_miss: Total = field(default_factory=Total)
    compute: ComputeTotals = field(default_factory=ComputeTotals)
    batches: dict[int, ComputeTotals] = field(default_factory=dict)
    requests: dict[Code | None, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    queue_histogram: Histogram = field(default_factory=Histogram)
    compute_histogram: Histogram = field(default_factory=Histogram)


class ModelStatistics:
    """The counters of one model. Safe from any thread.

    A run is only noted when it ends, and counted later with others. So no request waits for the counters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters = Snapshot()
        # Appending and popping need no lock.
        self._uncounted: deque[tuple[Sequence[RunTimes], int, int]] = deque()

    def record_success(self, times: RunTimes, batch: int) -> None:
        """Count one answered request of `batch` inferences."""
        self.record_run((times,), batch)

    def record_run(self, requests: Sequence[RunTimes], batch: int) -> None:
        """Count one run of `batch` inferences that answered these requests."""
        self._uncounted.append((requests, batch, time.time_ns()))
        if len(self._uncounted) >= _MOST_UNCOUNTED:
            self._count()

    def record_hit(self, ns: int) -> None:
        """Count one request that was answered from the cache."""
        with self._lock:
            counters = self._counters
            counters.last_inference_ms = time.time_ns() // 1_000_000
            counters.success.add(ns)
            counters.cache_hit.add(ns)
            counters.requests[None] = counters.requests.get(None, 0) + 1

    def record_miss(self, ns: int) -> None:
        """Count one lookup in the cache that found nothing."""
        with self._lock:
            self._counters.cache_miss.add(ns)

    def record_failure(self, error: ProtocolError, ns: int) -> None:
        """Count one refused or failed request."""
        with self._lock:
            counters = self._counters
            counters.fail.add(ns)
            counters.requests[error.code] = counters.requests.get(error.code, 0) + 1
            counters.failures[error.reason] = counters.failures.get(error.reason, 0) + 1

    def read(self) -> "Snapshot":
        """Return the live counters. A reader may see one request partly counted; later totals are always correct."""
        self._count()
        return self._counters

    def _count(self) -> None:
        with self._lock:
            runs = [self._uncounted.popleft() for _ in range(len(self._uncounted))]
            if not runs:
                return
            counters = self._counters
            requests = [times for run in runs for times in run[0]]
            # Sum by columns, because `sum` of many values costs little more than one addition.
            queue = [times.queue for times in requests]
            counters.last_inference_ms = runs[-1][2] // 1_000_000
            counters.inference_count += sum([batch for _, batch, _ in runs])
            counters.execution_count += len(runs)
            counters.requests[None] = counters.requests.get(None, 0) + len(requests)
            counters.queue.add(sum(queue), len(requests))
            counters.success.add(sum([sum(times) for times in requests]), len(requests))
            counters.compute.add(requests)
            counters.queue_histogram.observe(queue)
            counters.compute_histogram.observe([run[0][0].compute_infer for run in runs])
            for batch in {batch for _, batch, _ in runs}:
                firsts = [times[0] for times, size, _ in runs if size == batch]
                counters.batches.setdefault(batch, ComputeTotals()).add(firsts)
