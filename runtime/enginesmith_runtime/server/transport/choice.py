"""Which adapter serves: ours on HTTP/2 unless grpcio's is asked for."""

from enginesmith_contract.serve_request import TransportName
from enginesmith_runtime.server.transport.http2.transport import Http2Transport
from enginesmith_runtime.server.transport.interface import Methods, Transport
from enginesmith_runtime.server.transport.limits import TransportLimits
from enginesmith_runtime.server.transport.tls import Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

__all__ = ["open_transport"]


def open_transport(
    name: TransportName | None,
    methods: Methods,
    limits: TransportLimits,
    *,
    certificates: Certificates | None = None,
    tokens: Tokens | None = None,
) -> Transport:
    """Return a server that does not listen yet; `name` as in `ServerOptions`.

    Args:
        name: of the adapter.
        methods: that it serves.
        limits: of calls and connections.
        certificates: for TLS; None: plaintext.
        tokens: that calls need; None: they need none.
    """
    if name is TransportName.GRPCIO:
        # The library takes ten megabytes and a tenth of a second.
        from enginesmith_runtime.server.transport.grpc_transport import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(methods, limits, certificates=certificates, tokens=tokens)
    return Http2Transport(methods, limits, certificates=certificates, tokens=tokens)
