"""The transport's own limit: the product's transport adapter with a handler that answers a fixed message at once.

Usage: python -m benchmarks.gpu.echo_server ANSWER_BYTES; prints its address.
"""

import sys
import threading

from benchmarks.gpu.client import METHOD

from enginesmith_runtime.server.grpc_transport import GrpcLimits, GrpcTransport
from enginesmith_runtime.server.memory import keep_freed_memory
from enginesmith_runtime.server.transport.interface import Answer, CallContext, Reply, UnaryMethod

__all__: list[str] = []


def main() -> None:
    """Serve until killed."""
    answer = Answer(bytes(int(sys.argv[1])))

    def echo(_data: bytes, _context: CallContext, reply: Reply) -> None:
        reply(answer)

    limits = GrpcLimits(
        max_message_bytes=256 << 20, max_connection_age_seconds=None, grace_seconds=1, max_concurrent_calls=64
    )
    transport = GrpcTransport({METHOD: UnaryMethod(echo)}, limits)
    keep_freed_memory()
    print(transport.start("127.0.0.1:0"), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
