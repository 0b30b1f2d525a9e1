"""One process of the native client of `benchmarks.serving`, as a worker: it takes less of the processors than Python.

Usage: python -m benchmarks.gpu.native_client PROGRAM ADDRESS MESSAGE_FILE CONNECTIONS; one request in flight on each.
"""

import json
import subprocess
import sys

from benchmarks.gpu.workers import Turns, serve_turns

__all__: list[str] = []


def main() -> None:
    """Serve turns."""
    program, address, message, connections = sys.argv[1:]
    words = [program, "--address", address, "--request", message, "--warm-up", "0.1"]
    words += ["--connections", connections, "--in-flight", connections]

    def turns(seconds: float) -> Turns:
        found = json.loads(subprocess.check_output([*words, "--seconds", str(seconds)], text=True))
        if found["errors"]:
            raise RuntimeError(f"errors of the server: {found}")
        # Where no answer came in time, one takes longer than the turn.
        return Turns(rate=found["requestsPerSecond"], p50=(found["p50Ms"] or 1e3 * seconds) / 1e3)

    serve_turns(turns)


if __name__ == "__main__":
    main()
