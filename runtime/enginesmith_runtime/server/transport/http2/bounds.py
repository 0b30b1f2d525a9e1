"""What one connection, and all of them, may take of this process. What a ServeRequest says is in `TransportLimits`."""

from dataclasses import dataclass
from typing import Final

__all__ = ["BRIEF_BODY_BYTES", "HEADER_BLOCK_BYTES", "KEPT_BYTES", "SOCKET_BYTES", "Bounds"]

HEADER_BLOCK_BYTES: Final = 64 << 10
"""Of a header block, compressed or not. Beyond it the connection ends: its decoder cannot continue."""

BRIEF_BODY_BYTES: Final = 64 << 10
"""A request up to this size is read on the event loop; a larger one would keep the other connections waiting."""

SOCKET_BYTES: Final = 256 << 10
"""Of answers that the event loop has for one connection's socket and that are not counted: a socket that takes less for
now is full, and all that waits for it is counted. Also what is handed over between two looks whether it is."""

KEPT_BYTES: Final = 32 << 20
"""Of requests and answers: when more were held and have gone, the kernel gets their memory. Less is kept for others."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Sizes in bytes, times in seconds.

    Attributes:
        streams: open streams of a connection: more than a server runs, queues and streams by its defaults, so that a
            client's calls are refused with a sentence and do not wait in its library.
        frame_bytes: of a frame. DATA is received where its message lies, so larger frames take no more memory.
        stream_window: bytes that a client may send on a stream before it is given more; a message that needs more gets
            all it needs at once.
        connection_window: bytes of all streams of a connection on their way: three of the usual large messages.
        read_bytes: read at once; all connections share this memory, and a large message is read into its own.
        header_list_bytes: of a call's metadata, as RFC 9113 counts them; grpcio's limit. A call with more is refused.
        held_bytes: of requests that arrive in parts until they are answered, and of answers until the kernel has them,
            over all connections; eight of the largest messages where that is more. A connection may have half of it.
            Beyond it no call begins. What an engine answers then is added, and `SOCKET_BYTES` for each connection.
        unread_bytes: of control frames for a client that does not read; more of them end the connection.
        connections: that are open; the next one is closed at once.
        handshake_seconds: from a connection to its client's first SETTINGS, TLS included.
        keepalive_seconds: a client from which nothing came for so long gets a PING.
        keepalive_timeout_seconds: for the answer to it; then the client has vanished. Also for a client that stopped
            reading, after as long as `keepalive_seconds`.
        idle_seconds: a connection without a call for so long gets GOAWAY; its client connects again when it calls.
        arrival_seconds: in which more of a message must come once it has begun.
        leaving_seconds: for a client to close a connection after GOAWAY, and for its answer to the PING with it.
        patience: points; see `Patience`.
        tick_seconds: how exact all these times are.
    """

    streams: int = 1024
    frame_bytes: int = 1 << 20
    stream_window: int = 1 << 20
    connection_window: int = 16 << 20
    read_bytes: int = 64 << 10
    header_list_bytes: int = 16 << 10
    held_bytes: int = 512 << 20
    unread_bytes: int = 1 << 20
    connections: int = 4096
    handshake_seconds: float = 10.0
    keepalive_seconds: float = 60.0
    keepalive_timeout_seconds: float = 20.0
    idle_seconds: float = 3600.0
    arrival_seconds: float = 60.0
    leaving_seconds: float = 1.0
    patience: int = 10_000
    tick_seconds: float = 1.0
