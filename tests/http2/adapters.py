"""The transports under test, by name."""

from collections.abc import Mapping
from typing import Any

from enginesmith_runtime.server.transport.grpc_transport import GrpcTransport
from enginesmith_runtime.server.transport.http2.bounds import Bounds
from enginesmith_runtime.server.transport.http2.transport import Http2Transport
from enginesmith_runtime.server.transport.interface import Methods, Transport
from enginesmith_runtime.server.transport.limits import TransportLimits

ADAPTERS = ("grpcio", "http2")


def limits_of(**fields: Any) -> TransportLimits:
    """Return limits with defaults but for the fields that are given."""
    defaults = {
        "max_message_bytes": 4 << 20,
        "max_connection_age_seconds": None,
        "grace_seconds": 10.0,
        "max_waiting_calls": 2000,
        "max_streams": 64,
    }
    return TransportLimits(**{**defaults, **fields})


def make_transport(name: str, methods: Methods, limits: Mapping[str, Any], bounds: Mapping[str, Any]) -> Transport:
    """Return the transport of a name; `bounds`: fields of those of the transport that speaks HTTP/2 itself."""
    if name == "grpcio":
        return GrpcTransport(methods, limits_of(**limits))
    return Http2Transport(methods, limits_of(**limits), Bounds(**bounds))
