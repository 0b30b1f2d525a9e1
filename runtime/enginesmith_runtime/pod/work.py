"""Runs the work of a pod's process, with signals, output, termination message and exit code."""

import logging
import sys
from collections.abc import Callable, Mapping

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.record import Record
from enginesmith_runtime.pod.signals import signals_cancel
from enginesmith_runtime.pod.termination import termination_path, write_termination

__all__ = ["run_work"]


def run_work(
    work: Callable[[], tuple[Record, bytes]],
    report_failure: Callable[[EnginesmithError], bytes],
    *,
    command: str,
    noun: str,
    variables: Mapping[str, str],
) -> int:
    """Run the work. Every error becomes a termination message, a sentence on stderr and an exit code.

    Args:
        work: Function that returns the output and the termination message.
        report_failure: Function that returns the termination message of a failure.
        command: Name of the process, for the sentence.
        noun: Name of the work for messages about internal errors ("the builder").
        variables: The environment.
    """
    path = termination_path(variables)
    try:
        with signals_cancel():
            result, message = work()
    except EnginesmithError as error:
        failure = error
    except Exception as error:  # the boundary of the process: a pod must report why it ended
        logging.getLogger(__name__).exception("%s has a fault", noun)
        failure = EnginesmithError(f"{noun} has a fault", why=repr(error))
    else:
        write_termination(message, path)
        sys.stdout.write(f"{result.to_json().decode()}\n")
        return ExitCode.OK
    write_termination(report_failure(failure), path)
    sys.stderr.write(f"enginesmith {command}: {failure}\n")
    return int(failure.exit_code)
