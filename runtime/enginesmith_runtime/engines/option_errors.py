"""The error of an engine's loader for an invalid option."""

from enginesmith_contract.backend_options import OptionProblem
from enginesmith_contract.errors import SpecError

__all__ = ["option_refused"]


def option_refused(name: str, value: str, problem: OptionProblem) -> SpecError:
    """Return the error for one option of `backendOptions`."""
    known = f"; known are {', '.join(problem.known)}" if problem.known else ""
    return SpecError(
        "the option is not valid",
        where=f"backendOptions.{name}",
        why=f"found {value!r}: {problem.reason}{known}",
        remedy="correct the name" if problem.known else "correct the value",
        reason="BackendOptionInvalid",
    )
