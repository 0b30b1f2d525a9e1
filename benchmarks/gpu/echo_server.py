"""The transport's own limit: the product's transport adapter with a handler that answers a fixed message at once.

Usage: python -m benchmarks.gpu.echo_server ANSWER_BYTES [FRONT_ENDS]; prints its address.
"""

import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.gpu.client import METHOD

from enginesmith_contract.serve_request import ServerOptions
from enginesmith_runtime.server.front_ends.transport import FrontEnds
from enginesmith_runtime.server.memory import keep_freed_memory
from enginesmith_runtime.server.transport.choice import open_transport
from enginesmith_runtime.server.transport.interface import Answer, Body, CallContext, Reply, Transport, UnaryMethod
from enginesmith_runtime.server.transport.limits import TransportLimits

__all__: list[str] = []


def main() -> None:
    """Serve until killed."""
    size, front_ends = (int(argument) for argument in (*sys.argv[1:], "0")[:2])
    answer = Answer(bytes(size))

    def echo(_data: Body, _context: CallContext, reply: Reply) -> None:
        reply(answer)

    limits = TransportLimits(
        max_message_bytes=256 << 20,
        max_connection_age_seconds=None,
        grace_seconds=1,
        max_waiting_calls=64,
        max_streams=64,
    )
    methods = {METHOD: UnaryMethod(echo)}
    with tempfile.TemporaryDirectory() as folder:
        transport: Transport = (
            FrontEnds(methods, limits, ServerOptions(front_ends=front_ends), folder=Path(folder))
            if front_ends
            else open_transport(None, methods, limits)
        )
        keep_freed_memory()
        print(transport.start("127.0.0.1:0"), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
