"""The init container of a serving pod: `python -m enginesmith_runtime.pull [request]`.

    PullRequest ──> the GPU (NVML) ──> the engine for it ──> its blobs and pointer in `into` ──> serve-request.json

The request comes from the argument or from ENGINESMITH_PULL_REQUEST (JSON, or a file's path). It writes only below
`into`. If no engine is for the GPU, the pod ends with ENGINE_REFUSED and reports the node's label and the actual GPU.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginesmith_contract import environment
from enginesmith_contract.allowed_plugins import AllowedPlugins
from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.failure import Failure
from enginesmith_contract.pull_request import SERVE_REQUEST_FILE, PullRequest, ServingReport
from enginesmith_runtime.connection_limits import limit_connections
from enginesmith_runtime.engines.device import detect_devices, driver_problem, host_hardware
from enginesmith_runtime.pod.requests import read_request
from enginesmith_runtime.pod.termination import encode_serving_report
from enginesmith_runtime.pod.work import run_work
from enginesmith_runtime.progress_output import open_reporter
from enginesmith_runtime.pull.choice import Place, choose_engine, needs_device
from enginesmith_runtime.pull.copy_engine import copy_engine
from enginesmith_runtime.store.atomic_files import publish_over, temporary_file
from enginesmith_runtime.store.failures import translated
from enginesmith_runtime.store.open import open_store

__all__ = ["main"]


def main(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Pull one engine and return the exit code.

    Args:
        arguments: The request, or nothing.
        variables: The environment.
    """
    report = ServingReport()

    def work() -> tuple[ServingReport, bytes]:
        nonlocal report
        given = arguments[0] if arguments else variables.get(environment.PULL_REQUEST)
        request = read_request(PullRequest, given, environment.PULL_REQUEST)
        place = _look(request, variables)
        report = _describe(place.devices)
        pulled = _pull(request, place, report, variables)
        return pulled, encode_serving_report(pulled)

    def report_failure(error: EnginesmithError) -> bytes:
        return encode_serving_report(report.model_copy(update={"failure": Failure.from_error(error)}))

    return run_work(work, report_failure, command="pull", noun="the pull", variables=variables)


def _look(request: PullRequest, variables: Mapping[str, str]) -> Place:
    wanted = needs_device(request)
    devices = detect_devices() if wanted else ()
    return Place(
        devices=devices,
        problem=driver_problem() if wanted and not devices else "",
        host=host_hardware(),
        node_product=variables.get(environment.NODE_PRODUCT),
    )


def _pull(request: PullRequest, place: Place, report: ServingReport, variables: Mapping[str, str]) -> ServingReport:
    engine = choose_engine(request, place)
    into = Path(request.into)
    with open_reporter(variables.get(environment.LOG_FORMAT, "auto"), sys.stderr) as reporter:
        allowed = AllowedPlugins.from_text(variables.get(environment.PLUGINS_ALLOWED))
        manifest = copy_engine(open_store(request.store), engine, into, reporter, allowed)
    document = request.serve_request(engine.engine_key).to_json()
    with (
        translated(into, f"writing {SERVE_REQUEST_FILE}", needed_bytes=len(document)),
        temporary_file(into) as (temporary, stream),
    ):
        stream.write(document)
        publish_over(temporary, stream, into / SERVE_REQUEST_FILE)
    return report.model_copy(update={"engine_key": engine.engine_key, "engine_digest": manifest.engine_digest})


def _describe(devices: Sequence[Hardware]) -> ServingReport:
    if not devices:
        return ServingReport()
    first = devices[0]
    return ServingReport(product=first.product, mig_profile=first.mig_profile, driver=first.driver)


if __name__ == "__main__":
    limit_connections(os.environ)
    sys.exit(main(sys.argv[1:], os.environ))
