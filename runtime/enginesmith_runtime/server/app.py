"""Life of one server process: it creates all components, starts them and stops them.

    start    health says NOT_SERVING, models load one after another, each is Ready when every profile has run
    serve    until a signal or a lost device
    drain    NOT_SERVING at once; go on accepting for drainDelay, while endpoints are taken out of rotation; GOAWAY;
             end what runs, within the grace; close the instances

A second signal skips the rest of the delay and of the grace period.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from enginesmith_contract.errors import DeviceFailedError
from enginesmith_contract.serve_request import DEFAULT_MAX_STREAMS, ClientLimits, ServeRequest
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.server.announcement import Endpoints
from enginesmith_runtime.server.clients import Clients
from enginesmith_runtime.server.errors import device_failed
from enginesmith_runtime.server.front_ends.transport import FrontEnds
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.server.memory import keep_freed_memory
from enginesmith_runtime.server.metrics import ModelCollector, start_metrics
from enginesmith_runtime.server.protocol.infer import Inference, InferenceLimits
from enginesmith_runtime.server.protocol.limited_inference import LimitedInference
from enginesmith_runtime.server.protocol.rest.service import RestService, admission
from enginesmith_runtime.server.protocol.service import SERVICE, inference_methods
from enginesmith_runtime.server.protocol.traced_inference import TracedInference
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.stopping import Stopping
from enginesmith_runtime.server.tracing import Spans, is_wanted
from enginesmith_runtime.server.transport.choice import open_transport
from enginesmith_runtime.server.transport.health import HEALTH_SERVICE, HealthBoard
from enginesmith_runtime.server.transport.http.server import HttpLimits, HttpTransport
from enginesmith_runtime.server.transport.limits import TransportLimits
from enginesmith_runtime.server.transport.reflection import Reflection
from enginesmith_runtime.server.transport.tls import HTTP, Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.interface import Transport

__all__ = ["serve"]

_HURRIED_GRACE_SECONDS: Final = 0.5

_FAREWELL_SECONDS: Final = 0.5
"""Seconds in which a server with a failed device still refuses requests before it closes its connections."""

_SPARE_CALLS: Final = 128
"""Calls in addition to those that run or wait: calls that are being received or refused."""


def serve(request: ServeRequest, announce: Callable[[Endpoints], None], reporter: Reporter) -> None:
    """Serve until a signal or a device failure stops the server.

    Raises:
        DeviceFailedError: The device failed while the server was running.
        EnginesmithError: A model cannot be served, or an address cannot be used.
    """
    stopping = Stopping()
    folder = Path(tempfile.mkdtemp(prefix="enginesmith-serve-"))
    remove_folder = partial(shutil.rmtree, folder, ignore_errors=True)
    stopping.end_at_once_after(remove_folder)
    process = _Process(request, stopping, folder)
    try:
        endpoints = process.start()
        process.load(folder, reporter)
        keep_freed_memory()
        announce(endpoints)
        stopping.end_at_once_after(None)
        stopping.begun.wait()
    finally:
        process.drain()
        process.close()
        remove_folder()
    if stopping.failure is not None:
        raise stopping.failure


class _Process:
    """The components of one server and the order in which they start and stop."""

    def __init__(self, request: ServeRequest, stopping: Stopping, folder: Path) -> None:
        self._request = request
        self._stopping = stopping
        self._repository = Repository(request.models)
        self._health = HealthBoard((SERVICE, *(model.name for model in request.models)))
        self._stop_metrics: Callable[[], None] | None = None
        self._regions = RegionTable() if request.shared_memory else None
        self._certificates = None if request.tls is None else Certificates(request.tls)
        self._tokens = None if request.tokens is None else Tokens(Path(request.tokens))
        limited = request.client_limits is not None or self._tokens is not None
        self._spans = Spans() if is_wanted() else None
        self._clients = Clients(request.client_limits or ClientLimits()) if limited else None
        serves = (self._repository, InferenceLimits(max_message_bytes=request.max_message_bytes), self._regions)
        inference = Inference(*serves, self._lose_device)
        if self._spans is not None:
            clients = self._clients or Clients(ClientLimits())
            inference = TracedInference(*serves, self._lose_device, clients, self._spans)
        elif self._clients is not None:
            inference = LimitedInference(*serves, self._lose_device, self._clients)
        methods = {
            **inference_methods(self._repository, inference, self._regions, traced=self._spans is not None),
            **self._health.methods(),
            **Reflection((SERVICE, HEALTH_SERVICE)).methods(),
        }
        limits = self._limits()
        self._transport: Transport = (
            FrontEnds(methods, limits, request, folder=folder)
            if request.front_ends
            else open_transport(
                request.transport, methods, limits, certificates=self._certificates, tokens=self._tokens
            )
        )
        self._http: HttpTransport | None = None
        if request.http_address is not None:
            service = RestService(methods, inference)
            self._http = HttpTransport(
                service.handle,
                HttpLimits(max_message_bytes=request.max_message_bytes),
                certificates=None if request.tls is None else Certificates(request.tls, HTTP),
                admit=None if self._tokens is None else admission(self._tokens),
            )
        self._probes: Transport | None = None
        if request.health_address is not None:
            self._probes = open_transport(request.transport, self._health.methods(probes=True), limits)

    def start(self) -> Endpoints:
        """Listen on all addresses. No model is ready yet."""
        metrics_address = health_address = http_address = None
        if self._request.metrics_address is not None:
            collector = ModelCollector(self._repository, self._certificates, self._tokens, self._clients)
            self._stop_metrics, metrics_address = start_metrics(collector, self._request.metrics_address)
        if self._probes is not None and self._request.health_address is not None:
            health_address = self._probes.start(self._request.health_address)
        if self._http is not None and self._request.http_address is not None:
            http_address = self._http.start(self._request.http_address)
        address = self._transport.start(self._request.address)
        return Endpoints(
            address=address,
            health=health_address,
            metrics=metrics_address,
            http=http_address,
            transport=self._transport.name,
            models=tuple(model.name for model in self._request.models),
        )

    def load(self, folder: Path, reporter: Reporter) -> None:
        """Load every model and report SERVING."""
        loading = Loading(folder=folder, queue_limit=self._request.max_queued, reporter=reporter)
        for served in self._request.models:
            self._repository.make_ready(load_model(served, loading))
            self._health.set(served.name, serving=True)
        for name in ("", SERVICE):
            self._health.set(name, serving=True)

    def drain(self) -> None:
        """Report NOT_SERVING, wait for the drain delay, then end the running requests."""
        was_ready = self._repository.ready
        self._repository.draining = True
        self._health.stop_serving(drains=self._stopping.failure is None)
        if self._http is not None:
            self._http.draining = True
        if self._stopping.failure is not None:
            # Requests that are still arriving get the error message instead of a broken connection.
            time.sleep(_FAREWELL_SECONDS)
        elif was_ready:
            self._stopping.hurried.wait(self._request.drain_delay_seconds)
        ended = threading.Event()
        threading.Thread(target=self._shorten_grace, args=(ended,), name="hurry", daemon=True).start()
        self._stop_transports(self._request.grace_seconds)
        ended.set()

    def close(self) -> None:
        """Free the instances and the metrics port. The health port stays open for kubelet until the process ends."""
        for entry in self._repository:
            if entry.model is not None:
                entry.model.pool.close(_HURRIED_GRACE_SECONDS)
        if self._regions is not None and self._stopping.failure is None:
            self._regions.close()
        if self._stop_metrics is not None:
            self._stop_metrics()
        if self._spans is not None:
            self._spans.close()

    def _limits(self) -> TransportLimits:
        # Each model has its own queue, so one full queue does not block the others.
        waiting = sum(
            model.instances + (self._request.max_queued if model.max_queued is None else model.max_queued)
            for model in self._request.models
        )
        return TransportLimits(
            max_message_bytes=self._request.max_message_bytes,
            max_connection_age_seconds=self._request.max_connection_age_seconds,
            grace_seconds=self._request.grace_seconds,
            max_waiting_calls=waiting + _SPARE_CALLS,
            max_streams=self._request.max_streams or DEFAULT_MAX_STREAMS,
        )

    def _lose_device(self, error: DeviceFailedError) -> None:
        """Refuse all requests at once, on the thread that detected the failure. The main thread ends the process."""
        self._repository.draining = True
        self._health.stop_serving()
        for entry in self._repository:
            if entry.model is not None:
                entry.model.pool.refuse_all(device_failed(error))
        self._stopping.lose_device(error)

    def _shorten_grace(self, ended: threading.Event) -> None:
        self._stopping.hurried.wait()
        if not ended.is_set():
            # The shorter of two grace periods applies.
            self._stop_transports(min(self._request.grace_seconds, _HURRIED_GRACE_SECONDS))

    def _stop_transports(self, grace_seconds: float) -> None:
        http = threading.Thread(target=self._http.stop, args=(grace_seconds,)) if self._http is not None else None
        if http is not None:
            http.start()
        self._transport.stop(grace_seconds)
        if http is not None:
            http.join()
