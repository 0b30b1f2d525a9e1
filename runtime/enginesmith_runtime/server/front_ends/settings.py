"""What a front end receives when it starts, as one line of JSON on its standard input."""

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
    """Where a front end listens and what it offers.

    Attributes:
        address: host:port; other front ends have it too.
        engines: path of the socket of the process with the engines.
        transport: as in `ServerOptions`.
        unary: names of methods with one request and one answer, with whether a call may wait for an instance.
        streams: names of methods with a stream of requests, with how many of one stream may be unanswered.
        watches: names of methods with one request and answers until the client leaves.
        free: names of methods whose calls need no token.
        tls: as in `ServerOptions`.
        tokens: as in `ServerOptions`.
        names_clients: whether the process with the engines has to know whose calls it gets.
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
        """Return what `to_line` made."""
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
