"""What a front end receives when it starts, as one line of JSON on its standard input."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from enginesmith_runtime.server.transport.grpc_transport import GrpcLimits
from enginesmith_runtime.server.transport.interface import Methods, StreamMethod, UnaryMethod, WatchMethod

__all__ = ["LISTENING", "Settings"]

LISTENING: Final = "listening"
"""The line that a front end prints when clients can reach it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a front end listens and what it offers.

    Attributes:
        address: host:port; other front ends have it too.
        engines: path of the socket of the process with the engines.
        unary: names of methods with one request and one answer, with whether a call may wait for an instance.
        streams: names of methods with a stream of requests, with how many of one stream may be unanswered.
        watches: names of methods with one request and answers until the client leaves.
    """

    address: str
    engines: str
    limits: GrpcLimits
    unary: Mapping[str, bool]
    streams: Mapping[str, int]
    watches: tuple[str, ...]

    @classmethod
    def of(cls, address: str, engines: str, limits: GrpcLimits, methods: Methods) -> Self:
        """Return the settings for a map of methods."""
        return cls(
            address=address,
            engines=engines,
            limits=limits,
            unary={name: method.waits for name, method in methods.items() if isinstance(method, UnaryMethod)},
            streams={name: method.in_flight for name, method in methods.items() if isinstance(method, StreamMethod)},
            watches=tuple(name for name, method in methods.items() if isinstance(method, WatchMethod)),
        )

    def to_line(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Return what `to_line` made."""
        fields = json.loads(line)
        return cls(**{**fields, "limits": GrpcLimits(**fields["limits"])})
