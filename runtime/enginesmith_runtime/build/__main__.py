"""A builder's process: `python -m enginesmith_runtime.build [request file]`.

The request comes from the argument or from ENGINESMITH_BUILD_REQUEST (JSON, or a file's path). The exit code and the
termination message say how it ended; scratch files go to TMPDIR.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginesmith_contract import environment
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_runtime.build.outcome import encode_outcome, failure_message, success_message
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.build.plugin_libraries import PluginPlaces
from enginesmith_runtime.credential_files import take_source_credentials
from enginesmith_runtime.pod.requests import read_request
from enginesmith_runtime.pod.signals import signals_cancel
from enginesmith_runtime.pod.termination import termination_path, write_termination
from enginesmith_runtime.progress_output import open_reporter

__all__ = ["main"]


def main(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Build one engine.

    Args:
        arguments: at most the path of a request.
        variables: the environment.

    Returns:
        The exit code (see `enginesmith_contract.exit_codes`).
    """
    termination = termination_path(variables)
    request: BuildRequest | None = None
    try:
        with signals_cancel():
            request = _read_request(arguments, variables)
            with open_reporter(variables.get(environment.LOG_FORMAT, "auto"), sys.stderr) as reporter:
                places = PluginPlaces.from_environment(variables)
                manifest = build(request, Path(tempfile.gettempdir()), reporter, plugins_from=places)
    except EnginesmithError as error:
        return _fail(error, request, termination)
    except Exception as error:  # the boundary of the process: a pod must say why it ended
        logging.getLogger(__name__).exception("the builder has a fault")
        return _fail(EnginesmithError("the builder has a fault", why=repr(error)), request, termination)
    write_termination(encode_outcome(success_message(manifest)), termination)
    print(manifest.to_json().decode())
    return ExitCode.OK


def _read_request(arguments: Sequence[str], variables: Mapping[str, str]) -> BuildRequest:
    given = arguments[0] if arguments else variables.get(environment.BUILD_REQUEST)
    return read_request(BuildRequest, given, environment.BUILD_REQUEST)


def _fail(error: EnginesmithError, request: BuildRequest | None, termination: Path | None) -> int:
    write_termination(encode_outcome(failure_message(error, request)), termination)
    print(f"enginesmith build: {error}", file=sys.stderr)
    return int(error.exit_code)


if __name__ == "__main__":
    take_source_credentials(os.environ)
    sys.exit(main(sys.argv[1:], os.environ))
