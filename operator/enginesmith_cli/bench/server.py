"""A server that ends with the command that started it: `python -m enginesmith_cli.bench.server REQUEST`.

It prints the line for programs when it is ready, whatever the user's own log format is.
"""

import os
import sys
from typing import NoReturn

from enginesmith_contract.environment import LOG_FORMAT
from enginesmith_runtime.child_processes import die_with_parent

__all__ = ["main"]


def main(request: str) -> NoReturn:
    """Become the server for a request that is in a file."""
    # Also applies to the program that replaces this one.
    die_with_parent()
    words = [sys.executable, "-P", "-m", "enginesmith_runtime.server", "--request", request]
    os.execve(sys.executable, words, {**os.environ, LOG_FORMAT: "json"})  # noqa: S606 - this very interpreter, no shell


if __name__ == "__main__":
    main(sys.argv[1])
