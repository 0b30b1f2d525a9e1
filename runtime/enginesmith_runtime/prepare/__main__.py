"""A preparation's process: `python -m enginesmith_runtime.prepare [request]`.

The request comes from the argument or from ENGINESMITH_PREPARATION_REQUEST (JSON, or a file's path). The report is the
termination message and the output. Temporary files are in TMPDIR; everything else is written to the store.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginesmith_contract import environment
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.preparation_job import PreparationJobRequest, PreparationReport
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_runtime.connection_limits import limit_connections
from enginesmith_runtime.credential_files import take_source_credentials
from enginesmith_runtime.fetch.claims import in_mounted_claim
from enginesmith_runtime.pod.requests import read_request
from enginesmith_runtime.pod.work import run_work
from enginesmith_runtime.prepare.pipeline import prepare
from enginesmith_runtime.prepare.report import encode_report, failure_report, find_stored_engines, success_report
from enginesmith_runtime.prepare.source_watch import SourceWatch
from enginesmith_runtime.progress import Reporter, SilentReporter
from enginesmith_runtime.progress_output import open_reporter
from enginesmith_runtime.store.open import open_store

__all__ = ["main"]


def main(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Prepare one model and return the exit code.

    Args:
        arguments: The request, or nothing.
        variables: The environment.
    """
    watch = SourceWatch(SilentReporter())

    def work() -> tuple[PreparationReport, bytes]:
        nonlocal watch
        given = arguments[0] if arguments else variables.get(environment.PREPARATION_REQUEST)
        request = read_request(PreparationJobRequest, given, environment.PREPARATION_REQUEST)
        with open_reporter(variables.get(environment.LOG_FORMAT, "auto"), sys.stderr) as reporter:
            watch = SourceWatch(reporter)
            report = _prepare(request, watch, variables)
        return report, encode_report(report)

    def report_failure(error: EnginesmithError) -> bytes:
        return encode_report(failure_report(error, watch.source_digest))

    return run_work(work, report_failure, command="prepare", noun="the preparation", variables=variables)


def _prepare(request: PreparationJobRequest, reporter: Reporter, variables: Mapping[str, str]) -> PreparationReport:
    store = open_store(request.store)
    source = in_mounted_claim(request.preparation.source, variables)
    wanted = request.preparation.model_copy(update={"source": source})
    with tempfile.TemporaryDirectory(prefix="enginesmith-") as work:
        preparation = prepare(wanted, store, Path(work), reporter)
    store.refresh_pointer(preparation_pointer(preparation.preparation_key))
    stored, warnings = find_stored_engines(store, preparation.preparation_key, request.candidates)
    return success_report(preparation, stored, warnings, [one.backend for one in request.candidates])


if __name__ == "__main__":
    limit_connections(os.environ)
    take_source_credentials(os.environ)
    sys.exit(main(sys.argv[1:], os.environ))
