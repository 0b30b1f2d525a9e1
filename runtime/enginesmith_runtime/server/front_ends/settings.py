"""Settings of a front end, which it reads at its start as one line of JSON from its standard input."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from enginesmith_contract.serve_request import ServerOptions, TlsFiles, TransportName
from enginesmith_runtime.server.transport.interface import Methods, StreamMethod, UnaryMethod, WatchMethod
from enginesmith_runtime.server.transport.limits import TransportLimits

__all__ = ["LISTENING", "Settings"]

LISTENING: Final = "listening"
"""The line that a front end prints when clients can reach it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Address and methods of a front end.

    Attributes:
        address: host:port, which all front ends share.
        engines: Path of the socket of the process with the engines.
        transport: See `ServerOptions`.
        unary: Names of methods with one request and one response, and whether a call may wait for an instance.
        streams: Names of methods with a stream of requests, and the limit of unanswered requests in a stream.
        watches: Names of methods with one request, and responses until the client leaves.
        free: Names of methods that need no token.
        tls: See `ServerOptions`.
        tokens: See `ServerOptions`.
        names_clients: Whether the process with the engines must know the client of each call.
    """

    address: str
    engines: str
    limits: TransportLimits
    transport: TransportName | None
    unary: Mapping[str, bool]
    streams: Mapping[str, int]
    watches: tuple[str, ...]
    free: tuple[str, ...]
    tls: TlsFiles | None
    tokens: str | None
    names_clients: bool

    @classmethod
    def of(cls, address: str, engines: str, limits: TransportLimits, methods: Methods, options: ServerOptions) -> Self:
        """Return the settings for a map of methods."""
        return cls(
            address=address,
            engines=engines,
            limits=limits,
            transport=options.transport,
            tls=options.tls,
            tokens=options.tokens,
            names_clients=options.tokens is not None or options.client_limits is not None,
            free=tuple(name for name, method in methods.items() if method.free),
            unary={name: method.waits for name, method in methods.items() if isinstance(method, UnaryMethod)},
            streams={name: method.in_flight for name, method in methods.items() if isinstance(method, StreamMethod)},
            watches=tuple(name for name, method in methods.items() if isinstance(method, WatchMethod)),
        )

    def to_line(self) -> str:
        """Return one line of JSON."""
        tls = None if self.tls is None else self.tls.model_dump()
        return json.dumps({**asdict(self), "tls": tls}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Return the settings from the output of `to_line`."""
        fields = json.loads(line)
        name, tls = fields["transport"], fields["tls"]
        return cls(
            **{
                **fields,
                "limits": TransportLimits(**fields["limits"]),
                "transport": None if name is None else TransportName(name),
                "tls": None if tls is None else TlsFiles(**tls),
            }
        )
