"""The command line of a child that runs a module of this package."""

import sys

__all__ = ["python_command"]


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command, as isolated as this process: no import from the working folder, and with `-I` no PYTHONPATH.

    Args:
        module: to run.
        arguments: of the module.
    """
    return [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module, *arguments]
