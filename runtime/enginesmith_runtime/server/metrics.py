"""Prometheus metrics. They are computed from the models' counters on each scrape, so they add no cost to a request."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from typing_extensions import override

from enginesmith_contract.errors import ServeError
from enginesmith_runtime.server.clients import Clients
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.repository import ModelState, Repository
from enginesmith_runtime.server.statistics import Snapshot
from enginesmith_runtime.server.transport.tls import Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

__all__ = ["ModelCollector", "start_metrics"]

_LABELS = ("model", "version", "target")

_BATCH_SIZES = tuple(1 << power for power in range(11))

_NS = 1e-9


class ModelCollector(Collector):
    """Turns the counters of a repository's models into metrics."""

    def __init__(
        self,
        repository: Repository,
        certificates: Certificates | None = None,
        tokens: Tokens | None = None,
        clients: Clients | None = None,
    ) -> None:
        self._repository = repository
        self._certificates = certificates
        self._tokens = tokens
        self._clients = clients

    @override
    def collect(self) -> Iterable[Metric]:
        """Return the metrics of this moment."""
        models = [entry.model for entry in self._repository if entry.model is not None]
        ready = GaugeMetricFamily("enginesmith_model_ready", "1 where the model answers.", labels=_LABELS)
        for entry in self._repository:
            labels = (entry.served.name, entry.served.version, entry.served.target)
            ready.add_metric(labels, float(entry.state is ModelState.READY and not self._repository.draining))
        yield ready
        yield from _counters(models)
        yield from _gauges(models)
        yield from _device_memory(models)
        yield from _histograms(models)
        yield from self._access()

    def _access(self) -> Iterator[Metric]:
        """Return the metrics of the certificate and of the clients, if there are any."""
        if self._certificates is not None:
            self._certificates.reload()
            yield GaugeMetricFamily(
                "enginesmith_tls_certificate_expiration_timestamp_seconds",
                "When the certificate expires, in seconds since the epoch.",
                self._certificates.expires_at,
            )
        if self._tokens is not None:
            yield CounterMetricFamily(
                "enginesmith_calls_unauthenticated", "Calls without a valid token.", self._tokens.refused
            )
        if self._tokens is not None and self._clients is not None:
            by_client = CounterMetricFamily(
                "enginesmith_client_requests", "Requests by client and outcome.", labels=("client", "code")
            )
            for labels, count in self._clients.outcomes().items():
                by_client.add_metric(labels, count)
            yield by_client


def start_metrics(collector: ModelCollector, address: str) -> tuple[Callable[[], None], str]:
    """Serve /metrics on host:port. Return a function that stops it, and the address.

    Raises:
        ServeError: The address cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    host, _, port = address.rpartition(":")
    try:
        server, _thread = start_http_server(int(port), addr=host.strip("[]") or "0.0.0.0", registry=registry)  # noqa: S104 - an empty host means all, as everywhere
    except (OSError, ValueError) as error:
        raise ServeError(
            "cannot listen for metrics", where=address, why=str(error), remedy="choose a free metrics address"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop, f"{host}:{server.server_port}"


def _counters(models: list[LoadedModel]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "enginesmith_requests", "Requests by outcome, as gRPC names it.", labels=(*_LABELS, "code")
    )
    inferences = CounterMetricFamily("enginesmith_inferences", "Inferences; a batch of n counts n.", labels=_LABELS)
    failures = CounterMetricFamily(
        "enginesmith_requests_failed", "Requests that were refused or failed, by reason.", labels=(*_LABELS, "reason")
    )
    executions = CounterMetricFamily(
        "enginesmith_executions", "Runs of the engine, which joined requests share.", labels=_LABELS
    )
    hits = CounterMetricFamily("enginesmith_cache_hits", "Requests answered from the response cache.", labels=_LABELS)
    misses = CounterMetricFamily("enginesmith_cache_misses", "Requests not found in it.", labels=_LABELS)
    for model in models:
        counters = model.statistics.read()
        hits.add_metric(_labels(model), counters.cache_hit.count)
        misses.add_metric(_labels(model), counters.cache_miss.count)
        executions.add_metric(_labels(model), counters.execution_count)
        for code, count in tuple(counters.requests.items()):
            requests.add_metric((*_labels(model), code.name if code else "OK"), count)
        for reason, count in tuple(counters.failures.items()):
            failures.add_metric((*_labels(model), reason), count)
        inferences.add_metric(_labels(model), counters.inference_count)
    yield from (requests, failures, inferences, executions, hits, misses)


def _gauges(models: list[LoadedModel]) -> Iterator[Metric]:
    running = GaugeMetricFamily("enginesmith_requests_in_flight", "Requests that run.", labels=_LABELS)
    waiting = GaugeMetricFamily("enginesmith_requests_queued", "Requests that wait for an instance.", labels=_LABELS)
    instances = GaugeMetricFamily("enginesmith_instances", "Inferences that can run at once.", labels=_LABELS)
    engines = InfoMetricFamily("enginesmith_engine", "The engine that answers.", labels=_LABELS)
    for model in models:
        running.add_metric(_labels(model), model.pool.running)
        waiting.add_metric(_labels(model), model.pool.waiting)
        instances.add_metric(_labels(model), model.pool.size)
        toolchain = model.manifest.toolchain
        facts = {
            "engine": model.manifest.engine_key,
            "backend": toolchain.backend.value,
            "backend_version": toolchain.version,
            "gpu": model.manifest.hardware.product or "",
        }
        engines.add_metric(_labels(model), facts)
    yield from (running, waiting, instances, engines)


def _device_memory(models: list[LoadedModel]) -> Iterator[Metric]:
    """Return the memory metrics of engines on a GPU; other engines have none."""
    held = GaugeMetricFamily(
        "enginesmith_device_memory_bytes",
        "What a model holds on the GPU (weights, contexts, buffers) and pinned on the host, over all its instances.",
        labels=(*_LABELS, "part"),
    )
    taken = CounterMetricFamily(
        "enginesmith_device_allocations", "How often memory was taken; a request takes none.", labels=_LABELS
    )
    for model in models:
        memory = model.engine.device_memory
        if memory is None:
            continue
        parts = {
            "weights": memory.weights,
            "contexts": memory.contexts,
            "buffers": memory.buffers,
            "pinned": memory.pinned,
        }
        for part, size in parts.items():
            if size is not None:
                held.add_metric((*_labels(model), part), size)
        taken.add_metric(_labels(model), memory.allocations)
    yield from (held, taken)


def _histograms(models: list[LoadedModel]) -> Iterator[Metric]:
    queue = HistogramMetricFamily("enginesmith_queue_seconds", "Time before an instance was free.", labels=_LABELS)
    compute = HistogramMetricFamily("enginesmith_compute_seconds", "Time of the engine's run.", labels=_LABELS)
    reading = CounterMetricFamily(
        "enginesmith_compute_input_seconds", "Time in which requests' inputs were read and joined.", labels=_LABELS
    )
    writing = CounterMetricFamily(
        "enginesmith_compute_output_seconds", "Time in which answers were written.", labels=_LABELS
    )
    batches = HistogramMetricFamily("enginesmith_batch_size", "Inferences in one run of the engine.", labels=_LABELS)
    for model in models:
        counters = model.statistics.read()
        queue.add_metric(_labels(model), counters.queue_histogram.cumulative(), counters.queue_histogram.sum_seconds)
        compute.add_metric(
            _labels(model), counters.compute_histogram.cumulative(), counters.compute_histogram.sum_seconds
        )
        reading.add_metric(_labels(model), counters.compute.compute_input.ns * _NS)
        writing.add_metric(_labels(model), counters.compute.compute_output.ns * _NS)
        batches.add_metric(_labels(model), *_batch_sizes(counters))
    yield from (queue, compute, reading, writing, batches)


def _batch_sizes(counters: Snapshot) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulative buckets of inferences per run, and the total number of inferences."""
    runs = {size: totals.compute_infer.count for size, totals in tuple(counters.batches.items())}
    buckets = [(str(float(most)), float(sum(runs[size] for size in runs if size <= most))) for most in _BATCH_SIZES]
    return [*buckets, ("+Inf", float(sum(runs.values())))], float(sum(size * count for size, count in runs.items()))


def _labels(model: LoadedModel) -> tuple[str, str, str]:
    return (model.name, model.version, model.target)
