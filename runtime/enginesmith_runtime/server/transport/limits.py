"""What a ServeRequest says about connections and calls, for every adapter: limits, and the sentences beyond them."""

from dataclasses import dataclass
from typing import Final

from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import GRPC_MESSAGE_BYTES
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import Method, StreamMethod, UnaryMethod, WatchMethod

__all__ = ["PROMPT_CALLS", "WATCHES", "CallKind", "TransportLimits", "address_unavailable", "call_kind"]

PROMPT_CALLS: Final = 4096
"""Calls that wait for no instance, at once: health, questions about models and the server, shared memory."""

WATCHES: Final = 1024
"""Clients that watch health."""


@dataclass(frozen=True, kw_only=True)
class CallKind:
    """Calls that are counted together.

    Attributes:
        most: that there may be at once.
        refusal: the message that the next one gets.
    """

    name: str
    most: int
    refusal: str

    def refuse(self) -> ProtocolError:
        """Return what a call beyond the limit is answered with."""
        return ProtocolError(Code.RESOURCE_EXHAUSTED, self.refusal)


@dataclass(frozen=True, kw_only=True)
class TransportLimits:
    """What a ServeRequest says about connections and messages; see there.

    Attributes:
        max_waiting_calls: inferences that run, wait or are being received; more are refused.
        max_streams: open streams of requests; the same.
        share_port: whether other processes of this server listen on the port too.
    """

    max_message_bytes: int
    max_connection_age_seconds: float | None
    grace_seconds: float
    max_waiting_calls: int
    max_streams: int
    share_port: bool = False

    @property
    def largest_message(self) -> int:
        """Bytes of a message that the wire itself takes or sends.

        A refusal by the wire names no field, so it comes later than the protocol's. A stream wraps its answers, too.
        """
        return min(2 * self.max_message_bytes, GRPC_MESSAGE_BYTES - 1)

    def kinds(self) -> tuple[CallKind, CallKind, CallKind, CallKind]:
        """Return the kinds of calls: prompt ones, inferences, streams, watches; see `call_kind`."""
        return (
            CallKind(name="grpc", most=PROMPT_CALLS, refusal=f"{PROMPT_CALLS} calls wait; try again later"),
            CallKind(
                name="grpc-infer",
                most=self.max_waiting_calls,
                refusal=f"{self.max_waiting_calls} inferences run, wait or are being received; try again later or on "
                "another replica, or raise serving.maxQueued",
            ),
            CallKind(
                name="grpc-stream",
                most=self.max_streams,
                refusal=f"{self.max_streams} streams are open, as many as there may be; end one, or raise "
                "serving.maxStreams",
            ),
            CallKind(
                name="grpc-watch",
                most=WATCHES,
                refusal=f"{WATCHES} calls watch health, as many as there may be",
            ),
        )


def call_kind(method: Method) -> int:
    """Return the index in `TransportLimits.kinds` of the kind of a method's calls."""
    match method:
        case UnaryMethod(waits=waits):
            return int(waits)
        case StreamMethod():
            return 2
        case WatchMethod():
            return 3


def address_unavailable(address: str) -> ServeError:
    """Return what a server ends with that cannot listen on host:port."""
    return ServeError(
        "cannot listen",
        where=address,
        why="the port is taken or the host is not this machine's",
        remedy="choose another address, or port 0 for a free one",
        reason="AddressUnavailable",
    )
