"""The process after the user's metric: `python -m enginesmith_runtime.build.verdict [request file]`.

It reads the candidate that the build left and the result that the metric left, and stores the engine or refuses it.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginesmith_contract import environment
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.build.metric_gate import MetricFolders, judge_candidate, require_same
from enginesmith_runtime.build.outcome import encode_outcome, failure_message, success_message
from enginesmith_runtime.build.pipeline import publish
from enginesmith_runtime.build.preparations import read_preparation
from enginesmith_runtime.connection_limits import limit_connections
from enginesmith_runtime.pod.requests import read_request
from enginesmith_runtime.pod.work import run_work
from enginesmith_runtime.store.open import open_store

__all__ = ["main"]


def main(arguments: Sequence[str], variables: Mapping[str, str], folders: MetricFolders) -> int:
    """Judge one engine and return the exit code.

    Args:
        arguments: at most the path of a request.
        variables: the environment.
        folders: of the metric.
    """
    request: BuildRequest | None = None

    def work() -> tuple[Manifest, bytes]:
        nonlocal request
        given = arguments[0] if arguments else variables.get(environment.BUILD_REQUEST)
        request = read_request(BuildRequest, given, environment.BUILD_REQUEST)
        judged = judge_candidate(request, folders)
        store = open_store(request.store)
        stored = publish(store, request, read_preparation(store, request), judged)
        manifest = require_same(stored, judged)
        return manifest, encode_outcome(success_message(manifest))

    def report_failure(error: EnginesmithError) -> bytes:
        return encode_outcome(failure_message(error, request))

    return run_work(work, report_failure, command="verdict", noun="the verdict", variables=variables)


if __name__ == "__main__":
    limit_connections(os.environ)
    sys.exit(main(sys.argv[1:], os.environ, MetricFolders(Path(os.environ[environment.METRIC_CANDIDATE]))))
