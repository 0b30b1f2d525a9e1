"""A builder's process: `python -m enginesmith_runtime.build [request file]`.

The request comes from the argument or from ENGINESMITH_BUILD_REQUEST (JSON, or a file's path). The exit code and the
termination message say how it ended; scratch files go to TMPDIR.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginesmith_contract import environment
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.build.metric_gate import MetricFolders
from enginesmith_runtime.build.outcome import encode_outcome, failure_message, success_message
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.build.plugin_libraries import PluginPlaces
from enginesmith_runtime.connection_limits import limit_connections
from enginesmith_runtime.credential_files import take_source_credentials
from enginesmith_runtime.pod.requests import read_request
from enginesmith_runtime.pod.work import run_work
from enginesmith_runtime.progress_output import open_reporter

__all__ = ["main"]


def main(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Build one engine and return the exit code.

    Args:
        arguments: at most the path of a request.
        variables: the environment.
    """
    request: BuildRequest | None = None

    def work() -> tuple[Manifest, bytes]:
        nonlocal request
        given = arguments[0] if arguments else variables.get(environment.BUILD_REQUEST)
        request = read_request(BuildRequest, given, environment.BUILD_REQUEST)
        with open_reporter(variables.get(environment.LOG_FORMAT, "auto"), sys.stderr) as reporter:
            places = PluginPlaces.from_environment(variables)
            folder = variables.get(environment.METRIC_CANDIDATE)
            metric = MetricFolders(Path(folder)) if folder else None
            manifest = build(
                request,
                Path(tempfile.gettempdir()),
                reporter,
                plugins_from=places,
                metric=metric,
                wait_seconds=float(variables.get(environment.PREPARATION_WAIT) or 0.0),
            )
        return manifest, encode_outcome(success_message(manifest))

    def report_failure(error: EnginesmithError) -> bytes:
        return encode_outcome(failure_message(error, request))

    return run_work(work, report_failure, command="build", noun="the builder", variables=variables)


if __name__ == "__main__":
    limit_connections(os.environ)
    take_source_credentials(os.environ)
    sys.exit(main(sys.argv[1:], os.environ))
