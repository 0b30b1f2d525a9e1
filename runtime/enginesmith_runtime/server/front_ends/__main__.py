"""`python -m enginesmith_runtime.server.front_ends`: one front end, started by the process with the engines.

It reads the settings from its standard input. Each later line is a number of seconds: the front end stops within them.
The input ends when the process with the engines ends.
"""

import os
import sys
import threading
from pathlib import Path

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.log_lines import log_to_stderr
from enginesmith_runtime.server.front_ends.forwarding import forwarded_methods
from enginesmith_runtime.server.front_ends.settings import LISTENING, Settings
from enginesmith_runtime.server.memory import keep_freed_memory
from enginesmith_runtime.server.transport.choice import open_transport
from enginesmith_runtime.server.transport.tls import Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

__all__: list[str] = []


def main() -> None:
    """Serve until a line on standard input stops it, or until the process with the engines ends."""
    log_to_stderr()
    settings = Settings.from_line(sys.stdin.readline())
    transport = open_transport(
        settings.transport,
        forwarded_methods(settings),
        settings.limits,
        certificates=None if settings.tls is None else Certificates(settings.tls),
        tokens=None if settings.tokens is None else Tokens(Path(settings.tokens)),
    )
    transport.start(settings.address)
    keep_freed_memory()
    print(LISTENING, flush=True)

    def stop(grace_seconds: float) -> None:
        transport.stop(grace_seconds)
        os._exit(ExitCode.OK)

    for line in sys.stdin:
        threading.Thread(target=stop, args=(float(line),), daemon=True).start()
    # Do not return: the interpreter would wait for the library's threads.
    os._exit(ExitCode.OK)


if __name__ == "__main__":
    main()
