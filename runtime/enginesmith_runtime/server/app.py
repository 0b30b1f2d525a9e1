"""The composition of one server process, from its request to its end.

    start    health says NOT_SERVING, models load one after another, each is Ready when every profile has run
    serve    until a signal or a lost device
    drain    NOT_SERVING at once; go on accepting for drainDelay, while endpoints are taken out of rotation; GOAWAY;
             end what runs, within the grace; close the instances

A second signal skips what is left of the delay and of the grace.
"""

import asyncio
import logging
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.serve_request import ServeRequest
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.server.announcement import Endpoints
from enginesmith_runtime.server.grpc_transport import GrpcLimits, GrpcTransport
from enginesmith_runtime.server.health import HEALTH_SERVICE, HealthBoard
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.server.metrics import start_metrics
from enginesmith_runtime.server.protocol.infer import Inference, InferenceLimits
from enginesmith_runtime.server.protocol.service import SERVICE, inference_methods
from enginesmith_runtime.server.reflection import Reflection
from enginesmith_runtime.server.repository import Repository

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_HURRIED_GRACE_SECONDS: Final = 0.5


@dataclass
class _Stopping:
    """Why and how fast the process ends."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: ExitCode = ExitCode.OK

    def on_signal(self, number: signal.Signals) -> None:
        # At a keyboard nobody takes this server out of a load balancer first.
        if self.begun.is_set() or number is signal.SIGINT:
            self.hurried.set()
        self.begun.set()

    def on_lost_device(self) -> None:
        self.exit_code = ExitCode.DEVICE_FAILED
        self.hurried.set()
        self.begun.set()


async def serve(request: ServeRequest, announce: Callable[[Endpoints], None], reporter: Reporter) -> ExitCode:
    """Serve until told to stop; returns what the process exits with.

    Raises:
        EnginesmithError: a model cannot be served or an address cannot be had.
    """
    loop, stopping = asyncio.get_running_loop(), _Stopping()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.on_signal, number)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enginesmith-serve-")))
        process = _Process(request, stopping, loop)
        stack.callback(process.close)
        endpoints = await process.start()
        try:
            loaded = await process.load(folder, reporter)
            if loaded:
                announce(endpoints)
                await stopping.begun.wait()
        finally:
            await process.drain()
    return stopping.exit_code


class _Process:
    """The parts of one server and the order in which they start and end."""

    def __init__(self, request: ServeRequest, stopping: _Stopping, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._stopping = stopping
        self._repository = Repository(request.models)
        self._health = HealthBoard((SERVICE, *(model.name for model in request.models)))
        self._stop_metrics: Callable[[], None] | None = None

        def lose_device(error: EngineRefusedError) -> None:
            _log.error("the device failed: %s", error)
            loop.call_soon_threadsafe(stopping.on_lost_device)

        limits = InferenceLimits(max_message_bytes=request.max_message_bytes)
        inference = Inference(self._repository, limits, lose_device)
        grpc_limits = GrpcLimits(
            max_message_bytes=request.max_message_bytes,
            max_connection_age_seconds=request.max_connection_age_seconds,
            grace_seconds=request.grace_seconds,
        )
        methods = {
            **inference_methods(self._repository, inference),
            **self._health.methods(),
            **Reflection((SERVICE, HEALTH_SERVICE)).methods(),
        }
        self._transport = GrpcTransport(methods, grpc_limits)
        self._probes: GrpcTransport | None = None
        if request.health_address is not None:
            self._probes = GrpcTransport(self._health.methods(), grpc_limits)

    async def start(self) -> Endpoints:
        """Listen everywhere; nothing is ready yet."""
        metrics_address = health_address = None
        if self._request.metrics_address is not None:
            self._stop_metrics, metrics_address = start_metrics(self._repository, self._request.metrics_address)
        if self._probes is not None and self._request.health_address is not None:
            health_address = await self._probes.start(self._request.health_address)
        address = await self._transport.start(self._request.address)
        return Endpoints(
            address=address,
            health=health_address,
            metrics=metrics_address,
            models=tuple(model.name for model in self._request.models),
        )

    async def load(self, folder: Path, reporter: Reporter) -> bool:
        """Load every model; returns False where a signal came in between."""
        # Each model has a share of its own, so that one model's flood leaves the others room.
        share = max(self._request.max_queued // max(len(self._request.models), 1), 1)
        loading = Loading(folder=folder, queue_limit=share, reporter=reporter)
        for served in self._request.models:
            model = await asyncio.to_thread(load_model, served, loading)
            self._repository.make_ready(model)
            self._health.set(served.name, serving=True)
            if self._stopping.begun.is_set():
                return False
        for name in ("", SERVICE):
            self._health.set(name, serving=True)
        return True

    async def drain(self) -> None:
        """Leave the rotation, then end what runs."""
        ready = self._repository.ready
        self._repository.draining = True
        self._health.stop_serving()
        if ready:
            await _wait(self._stopping.hurried, self._request.drain_delay_seconds)
        await self._stop_transport()
        if self._probes is not None:
            await self._probes.stop(0)

    async def _stop_transport(self) -> None:
        stop = asyncio.create_task(self._transport.stop(self._request.grace_seconds))
        hurried = asyncio.create_task(self._stopping.hurried.wait())
        await asyncio.wait((stop, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not stop.done():
            # The shorter of two graces holds.
            await self._transport.stop(min(self._request.grace_seconds, _HURRIED_GRACE_SECONDS))
        await stop

    def close(self) -> None:
        """Free the instances and the metrics port."""
        for entry in self._repository:
            if entry.model is not None:
                entry.model.pool.close()
        if self._stop_metrics is not None:
            self._stop_metrics()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
