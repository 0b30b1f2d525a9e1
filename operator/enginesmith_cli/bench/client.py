"""A client in a process of its own: `python -m enginesmith_cli.bench.client`.

It keeps a number of requests in flight, each sent when the one before it was answered. Standard input
has one line of JSON (an Order), then `go` when all clients are ready; standard output gets `ready` and a Report.
Messages travel as bytes: nothing is encoded or decoded in the time measured.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from enginesmith_contract.record import Record
from enginesmith_contract.text import one_line
from enginesmith_runtime.child_processes import die_with_parent, open_event_stream

__all__ = ["Order", "Report"]

_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Else channels to one address share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_PAUSE_SECONDS: Final = 0.01


class Order(Record):
    """What a client does.

    Attributes:
        request: a file with an encoded ModelInferRequest.
        in_flight: requests that it keeps on their way.
        connections: that they are spread over; each front end of a server has connections of its own.
        warm_up_seconds: during which nothing is counted.
    """

    address: str
    request: str
    in_flight: int
    connections: int
    warm_up_seconds: float
    seconds: float
    timeout_seconds: float


class Report(Record):
    """What a client saw.

    Attributes:
        latencies_us: of each answered request, in microseconds.
        cpu_seconds: processor time of this process in the time measured.
        refused: requests that failed; `refusal` is the first one's message.
    """

    latencies_us: tuple[int, ...]
    cpu_seconds: float
    refused: int = 0
    refusal: str = ""


class _Counts:
    def __init__(self) -> None:
        self.latencies_us: list[int] = []
        self.refused = 0
        self.refusal = ""


_Calls = Sequence[grpc.aio.UnaryUnaryMultiCallable]


async def _loop(
    call: grpc.aio.UnaryUnaryMultiCallable, order: Order, message: bytes, end: float, counts: _Counts
) -> None:
    while (begun := time.perf_counter()) < end:
        try:
            await call(message, timeout=order.timeout_seconds)
        except grpc.aio.AioRpcError as error:
            counts.refused += 1
            counts.refusal = counts.refusal or one_line(f"{error.code().name}: {error.details()}")
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            counts.latencies_us.append(round((time.perf_counter() - begun) * 1e6))


async def _drive(calls: _Calls, order: Order, message: bytes, seconds: float) -> _Counts:
    counts = _Counts()
    end = time.perf_counter() + seconds
    loops = (_loop(calls[number % len(calls)], order, message, end, counts) for number in range(order.in_flight))
    await asyncio.gather(*loops)
    return counts


async def _main() -> None:
    events = open_event_stream()
    order = Order.from_json(sys.stdin.buffer.readline())
    message = await asyncio.to_thread(Path(order.request).read_bytes)
    async with AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(order.address, options=_OPTIONS) for _ in range(order.connections)]
        calls = [(await stack.enter_async_context(channel)).unary_unary(_INFER) for channel in channels]
        await _drive(calls, order, message, order.warm_up_seconds)
        events.write(b"ready\n")
        if not sys.stdin.buffer.readline():
            return
        before = time.process_time()
        counts = await _drive(calls, order, message, order.seconds)
        cpu_seconds = time.process_time() - before
    report = Report(
        latencies_us=tuple(counts.latencies_us),
        cpu_seconds=cpu_seconds,
        refused=counts.refused,
        refusal=counts.refusal,
    )
    events.write(report.to_json() + b"\n")


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(_main())
