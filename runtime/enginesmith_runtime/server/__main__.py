"""`python -m enginesmith_runtime.server`: one server process, configured by a ServeRequest."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from enginesmith_contract import environment
from enginesmith_contract.errors import EnginesmithError, ServeError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.failure import Failure
from enginesmith_contract.log_lines import log_to_stderr
from enginesmith_contract.pull_request import ServingReport
from enginesmith_contract.serve_request import ServeRequest
from enginesmith_runtime.pod.termination import encode_serving_report, termination_path, write_termination
from enginesmith_runtime.progress_output import open_reporter
from enginesmith_runtime.server.announcement import Endpoints, ready_line, ready_text
from enginesmith_runtime.server.app import serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Read the request and serve. A failure is reported as one sentence on stderr and an exit code."""
    parser = argparse.ArgumentParser(prog="python -m enginesmith_runtime.server", description=__doc__)
    parser.add_argument(
        "--request",
        help=f"a ServeRequest as JSON, or a file of it, /dev/fd/N too (default: ${environment.SERVE_REQUEST})",
    )
    parsed = parser.parse_args(arguments)
    log_to_stderr()
    log_format = os.environ.get(environment.LOG_FORMAT, "auto")
    request: ServeRequest | None = None
    try:
        request = _read_request(parsed.request or os.environ.get(environment.SERVE_REQUEST))
        with open_reporter(log_format, sys.stderr) as reporter:
            serve(request, _announcer(log_format), reporter)
    except EnginesmithError as error:
        print(f"enginesmith: {error}", file=sys.stderr)
        write_termination(encode_serving_report(_failure_report(error, request)), termination_path(os.environ))
        return error.exit_code
    return ExitCode.OK


def _failure_report(error: EnginesmithError, request: ServeRequest | None) -> ServingReport:
    keys = [model.engine_key for model in request.models] if request is not None else []
    return ServingReport(engine_key=keys[0] if len(keys) == 1 else None, failure=Failure.from_error(error))


def _read_request(given: str | None) -> ServeRequest:
    if given is None:
        raise ServeError(
            "no request was given", remedy=f"pass --request FILE or set {environment.SERVE_REQUEST}", reason="NoRequest"
        )
    inline = given.lstrip().startswith("{")
    path = "the request" if inline else given
    try:
        request = ServeRequest.from_json(given.encode() if inline else Path(given).read_bytes())
    except OSError as error:
        raise ServeError(
            "the request cannot be read", where=path, why=error.strerror or str(error), reason="NoRequest"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ServeError(
            "the request is no ServeRequest", where=path, why=f"{field}: {first['msg']}", reason="RequestInvalid"
        ) from error
    names = [model.name for model in request.models]
    if not names or len(set(names)) < len(names):
        raise ServeError(
            "a server needs models, each with a name of its own",
            where=path,
            why=f"found {', '.join(names) or 'none'}",
            reason="RequestInvalid",
        )
    return request


def _announcer(log_format: str) -> Callable[[Endpoints], None]:
    text = log_format == "text" or (log_format == "auto" and sys.stdout.isatty())

    def announce(endpoints: Endpoints) -> None:
        print(ready_text(endpoints) if text else ready_line(endpoints), flush=True)

    return announce


def _end(code: ExitCode) -> None:
    """End the process now, even if a native inference never returns."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
