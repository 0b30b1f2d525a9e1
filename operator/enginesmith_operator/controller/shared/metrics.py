"""The controller's metrics, in a separate registry without metrics of libraries."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from typing_extensions import override

from enginesmith_operator.cluster.client import Write, WriteObserver

__all__ = ["CountingObserver", "Metrics"]

_BUILD_SECONDS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)


class Metrics:
    """The controller's counters, gauges and histograms."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "enginesmith_reconciles", "Passes over one object.", ("kind", "result"), registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "enginesmith_reconcile_seconds", "Duration of a pass.", ("kind",), registry=self.registry
        )
        self.queue_depth = Gauge("enginesmith_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        self.queue_delayed = Gauge(
            "enginesmith_queue_delayed", "Keys that are scheduled for later.", registry=self.registry
        )
        self.queue_seconds = Histogram(
            "enginesmith_queue_seconds", "How long a key waited for a worker.", registry=self.registry
        )
        self.builds = Counter("enginesmith_builds", "Builds that ended.", ("result",), registry=self.registry)
        self.build_seconds = Histogram(
            "enginesmith_build_seconds",
            "Duration of a build that succeeded.",
            ("backend",),
            buckets=_BUILD_SECONDS,
            registry=self.registry,
        )
        self.engines = Gauge(
            "enginesmith_engines", "InferenceEngines by their Ready condition.", ("ready",), registry=self.registry
        )
        self.writes = Counter(
            "enginesmith_api_writes",
            "Writes to the API server, except to the Lease.",
            ("verb", "kind", "result"),
            registry=self.registry,
        )
        self.objects = Gauge("enginesmith_objects", "Objects that are known.", ("kind",), registry=self.registry)
        self.leads = Gauge("enginesmith_leader", "1 while this replica is the leader.", registry=self.registry)
        self.loop_lag_seconds = Gauge(
            "enginesmith_loop_lag_seconds", "Delay of the event loop's last timer.", registry=self.registry
        )

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self.registry)


class CountingObserver(WriteObserver):
    """Counts every write and then tells the next observer."""

    def __init__(self, metrics: Metrics, follower: WriteObserver | None = None) -> None:
        self._metrics = metrics
        self._follower = follower or WriteObserver()

    @override
    def before_write(self, write: Write) -> None:
        self._follower.before_write(write)

    @override
    def after_write(self, write: Write, *, succeeded: bool) -> None:
        self._metrics.writes.labels(write.verb, write.kind, "ok" if succeeded else "failed").inc()
        self._follower.after_write(write, succeeded=succeeded)
