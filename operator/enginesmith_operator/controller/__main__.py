"""`python -m enginesmith_operator.controller`: the operator, in a pod or (`make run`) in a shell."""

import argparse
import asyncio
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import EnginesmithError
from enginesmith_operator.controller.process.logs import configure_logging
from enginesmith_operator.controller.process.run import Process, run_operator
from enginesmith_operator.controller.shared.settings import load_settings

__all__ = ["main"]

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def main(arguments: list[str] | None = None) -> int:
    """Run the operator; return its exit code."""
    parser = argparse.ArgumentParser(prog="enginesmith-operator", description="The Enginesmith operator.")
    parser.add_argument("--config", type=Path, help="configuration file (docs/operator.md); default: none")
    parser.add_argument("--namespace", help="namespace of the operator; default: the pod's, else enginesmith-system")
    parser.add_argument("--verbose", action="store_true", help="log every pass")
    options = parser.parse_args(arguments)
    configure_logging(verbose=options.verbose)
    try:
        settings = load_settings(options.config)
        process = Process(namespace=options.namespace or _own_namespace(), identity=_identity())
        asyncio.run(run_operator(settings, process))
    except EnginesmithError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return "enginesmith-system"


def _identity() -> str:
    # A pod's name is unique in time only with something that changes at each start of the container.
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


if __name__ == "__main__":
    sys.exit(main())
