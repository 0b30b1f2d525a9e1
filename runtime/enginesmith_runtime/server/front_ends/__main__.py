"""`python -m enginesmith_runtime.server.front_ends`: one front end, started by the process with the engines.

It receives on its standard input the settings, and then lines that each say to stop within that many seconds of grace.
The end of its input is the end of the other process.
"""

import os
import sys
import threading

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_runtime.server.front_ends.forwarding import forwarded_methods
from enginesmith_runtime.server.front_ends.settings import LISTENING, Settings
from enginesmith_runtime.server.memory import keep_freed_memory
from enginesmith_runtime.server.transport.grpc_transport import GrpcTransport

__all__: list[str] = []


def main() -> None:
    """Serve until a line says to stop, or until the other process ends."""
    settings = Settings.from_line(sys.stdin.readline())
    transport = GrpcTransport(forwarded_methods(settings), settings.limits)
    transport.start(settings.address)
    keep_freed_memory()
    print(LISTENING, flush=True)

    def stop(grace_seconds: float) -> None:
        transport.stop(grace_seconds)
        os._exit(ExitCode.OK)

    for line in sys.stdin:
        threading.Thread(target=stop, args=(float(line),), daemon=True).start()
    # Not by returning: the library's threads would be waited for.
    os._exit(ExitCode.OK)


if __name__ == "__main__":
    main()
