"""grpc.health.v1: what kubelet's probes and load balancers ask. Names: "" for the whole, a service, each model."""

import threading
from collections.abc import Callable
from typing import Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Body,
    CallContext,
    Emit,
    Methods,
    Reply,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.messages import parse

__all__ = ["HEALTH_SERVICE", "HealthBoard"]

HEALTH_SERVICE: Final = "grpc.health.v1.Health"


class HealthBoard:
    """The status of every name, and those who watch it. Safe from any thread."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._serving = dict.fromkeys(("", *names), False)
        self._watchers: list[tuple[str, Emit]] = []

    def set(self, name: str, *, serving: bool) -> None:
        """Change one status and tell its watchers."""
        with self._lock:
            if self._serving[name] == serving:
                return
            self._serving[name] = serving
            for watched, emit in self._watchers:
                if watched == name:
                    emit(self._status(name))

    def stop_serving(self) -> None:
        """Set every name to NOT_SERVING."""
        for name in tuple(self._serving):
            self.set(name, serving=False)

    def methods(self) -> Methods:
        """Return the handlers of the service."""
        return {
            f"/{HEALTH_SERVICE}/Check": UnaryMethod(self._check),
            f"/{HEALTH_SERVICE}/Watch": WatchMethod(self._watch),
        }

    def _check(self, data: Body, _context: CallContext, reply: Reply) -> None:
        name = parse(HealthCheckRequest, data).service
        if name not in self._serving:
            raise ProtocolError(Code.NOT_FOUND, f"'{name}' is neither a service nor a model of this server")
        reply(Answer(self._status(name)))

    def _watch(self, data: Body, emit: Emit) -> Callable[[], None]:
        watcher = (parse(HealthCheckRequest, data).service, emit)
        with self._lock:
            emit(self._status(watcher[0]))
            self._watchers.append(watcher)

        def unsubscribe() -> None:
            with self._lock:
                self._watchers.remove(watcher)

        return unsubscribe

    def _status(self, name: str) -> bytes:
        serving = self._serving.get(name)
        if serving is None:
            status = HealthCheckResponse.SERVICE_UNKNOWN
        else:
            status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        return bytes(HealthCheckResponse(status=status).SerializeToString())
