"""grpc.health.v1: what kubelet's probes and load balancers ask. Names: "" for the whole, a service, each model.

A failed probe is a Warning event of the pod. So kubelet, which has a port of its own, gets its first answer when a
model serves, and no other answer while the server drains: Kubernetes has taken a pod that ends out of rotation already.
"""

import threading
from collections.abc import Callable
from itertools import count
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
        self._began: set[str] = set()
        self._held: dict[int, tuple[str, Reply]] = {}
        self._numbers = count()
        self._drains = False

    def set(self, name: str, *, serving: bool) -> None:
        """Change one status and tell its watchers."""
        with self._lock:
            if self._serving[name] == serving:
                return
            self._serving[name] = serving
            self._began.add(name)
            for watched, emit in self._watchers:
                if watched == name:
                    emit(self._status(name))
            waiting = [number for number, (held, _) in self._held.items() if held == name]
        for number in waiting:
            self._release(number)

    def stop_serving(self, *, drains: bool = False) -> None:
        """Set every name to NOT_SERVING; `drains`: the server still answers what comes, and ends by itself."""
        self._drains = drains
        for name in tuple(self._serving):
            self.set(name, serving=False)

    def methods(self, *, probes: bool = False) -> Methods:
        """Return the handlers of the service; `probes`: for kubelet's port."""
        return {
            f"/{HEALTH_SERVICE}/Check": UnaryMethod(self._probe if probes else self._check, free=True),
            f"/{HEALTH_SERVICE}/Watch": WatchMethod(self._watch, free=True),
        }

    def _check(self, data: Body, _context: CallContext, reply: Reply) -> None:
        name = parse(HealthCheckRequest, data).service
        if name not in self._serving:
            raise ProtocolError(Code.NOT_FOUND, f"'{name}' is neither a service nor a model of this server")
        reply(Answer(self._status(name)))

    def _probe(self, data: Body, context: CallContext, reply: Reply) -> None:
        name = parse(HealthCheckRequest, data).service
        with self._lock:
            waits = name in self._serving and name not in self._began
            if waits:
                number = next(self._numbers)
                self._held[number] = (name, reply)
        if waits:
            context.on_cancel(lambda: self._release(number))
        elif self._drains and name in self._began:
            reply(Answer(_encoded(HealthCheckResponse.SERVING)))
        else:
            self._check(data, context, reply)

    def _release(self, number: int) -> None:
        """Answer a probe that was held, unless it was answered already."""
        with self._lock:
            held = self._held.pop(number, None)
        if held is not None:
            name, reply = held
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
        return _encoded(status)


def _encoded(status: HealthCheckResponse.ServingStatus.ValueType) -> bytes:
    return bytes(HealthCheckResponse(status=status).SerializeToString())
