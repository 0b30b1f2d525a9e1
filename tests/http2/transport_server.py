"""A program: one transport with the service of gRPC's interoperability tests, until SIGTERM.

Usage: transport_server.py ADAPTER LIMITS BOUNDS, the last two as JSON; see `make_transport`. Prints the address.
"""

import json
import sys

from tests.http2.adapters import make_transport
from tests.http2.interop_service import methods

from enginesmith_runtime.server.stopping import Stopping


def main() -> None:
    """Serve."""
    limits = json.loads(sys.argv[2])
    transport = make_transport(sys.argv[1], methods(), limits, json.loads(sys.argv[3]))
    # A handler of the main thread alone would wait for it: the kernel may interrupt any thread.
    stopping = Stopping()
    print(transport.start("127.0.0.1:0"), flush=True)  # noqa: T201 - the test reads it
    stopping.begun.wait()
    transport.stop(limits.get("grace_seconds", 10.0))


if __name__ == "__main__":
    main()
