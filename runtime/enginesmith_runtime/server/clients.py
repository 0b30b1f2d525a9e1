"""Limits of each client (concurrent requests and requests per second), and counters of its requests.

A client is the owner of a token, or a connection if there are no tokens.
"""

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from enginesmith_contract.serve_request import ClientLimits
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import Answer, CallContext, Reply

__all__ = ["Clients", "Entry"]

_TOLERANCE_SECONDS: Final = 1e-6
"""Rounding error of a sum of short times."""

_MOST_IDLE: Final = 1024
"""Most clients that are remembered. Beyond it, clients with a full allowance are forgotten."""


class Clients:
    """Admits requests within the limits, and counts them. Safe from any thread.

    Args:
        limits: Limits of each client.
        clock: Function that returns the time in seconds.
    """

    def __init__(self, limits: ClientLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most = limits.max_in_flight
        self._rate = limits.requests_per_second
        self._lock = threading.Lock()
        self._in_flight: dict[Hashable, int] = {}
        # Time at which the client's allowance of one second is full again.
        self._whole_at: dict[Hashable, float] = {}
        self._outcomes: dict[tuple[str, str], int] = {}

    def enter(self, context: CallContext, reply: Reply) -> "Entry":
        """Admit a request and return its reply.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED if the client exceeds a limit.
        """
        name = context.client
        key: Hashable = context.source if name is None else name
        with self._lock:
            error = self._why_too_many(key) or self._why_too_soon(key)
            if error is None:
                self._in_flight[key] = self._in_flight.get(key, 0) + 1
            elif name is not None:
                self._count(name, error)
        if error is not None:
            raise error
        return Entry(self, key, name, reply)

    def leave(self, key: Hashable, name: str | None, outcome: Answer | Exception) -> None:
        """Note the end of a request."""
        with self._lock:
            left = self._in_flight[key] - 1
            if left:
                self._in_flight[key] = left
            else:
                del self._in_flight[key]
            if name is not None:
                self._count(name, outcome)

    def outcomes(self) -> Mapping[tuple[str, str], int]:
        """Return the number of requests by the client's name and gRPC's status."""
        with self._lock:
            return dict(self._outcomes)

    @property
    def remembered(self) -> int:
        """Return the number of clients that are remembered."""
        with self._lock:
            return len(self._in_flight.keys() | self._whole_at.keys())

    def _why_too_many(self, key: Hashable) -> ProtocolError | None:
        if self._most is None or self._in_flight.get(key, 0) < self._most:
            return None
        return ProtocolError(
            Code.RESOURCE_EXHAUSTED,
            f"the client has {self._most} requests without an answer, as many as serving.clientLimits.maxInFlight "
            "allows; wait for one, or raise the field",
            reason="ClientLimit",
        )

    def _why_too_soon(self, key: Hashable) -> ProtocolError | None:
        """Take one request from the client's allowance of one second, or return the error if it is used up."""
        if self._rate is None:
            return None
        now, each = self._clock(), 1.0 / self._rate
        whole_at = max(self._whole_at.get(key, 0.0), now)
        early = whole_at + each - now - max(1.0, each)
        if early > _TOLERANCE_SECONDS:
            return ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the client sends more than {self._rate:g} requests a second, which is "
                f"serving.clientLimits.requestsPerSecond; try again in {early:.3f} s, or raise the field",
                reason="ClientLimit",
            )
        if key not in self._whole_at and len(self._whole_at) >= _MOST_IDLE:
            self._whole_at = {one: at for one, at in self._whole_at.items() if at > now}
        self._whole_at[key] = whole_at + each
        return None

    def _count(self, name: str, outcome: Answer | Exception) -> None:
        if isinstance(outcome, Answer):
            code = "OK"
        else:
            code = outcome.code.name if isinstance(outcome, ProtocolError) else Code.INTERNAL.name
        self._outcomes[name, code] = self._outcomes.get((name, code), 0) + 1


class Entry:
    """The reply of an admitted request. Calling it ends the request."""

    __slots__ = ("_clients", "_key", "_name", "_reply")

    def __init__(self, clients: Clients, key: Hashable, name: str | None, reply: Reply) -> None:
        self._clients = clients
        self._key = key
        self._name = name
        self._reply = reply

    def __call__(self, outcome: Answer | ProtocolError) -> None:
        """End the request with its outcome."""
        # Do this first: the client may send its next request as soon as it has the response.
        self.leave(outcome)
        self._reply(outcome)

    def leave(self, outcome: Answer | Exception) -> None:
        """End the request without a reply, because other code sends it."""
        self._clients.leave(self._key, self._name, outcome)
