"""Keeps the traceback of a fault in Enginesmith, so that a report can include it and the terminal stays readable."""

import tempfile
import traceback
from pathlib import Path

from enginesmith_cli.home import state_folder

__all__ = ["write_fault_log"]


def write_fault_log(error: BaseException) -> Path:
    """Write the traceback into the home, or into the temporary folder where the home cannot be written."""
    text = "".join(traceback.format_exception(error))
    folder = state_folder() / "faults"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir())
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="fault-", suffix=".log", delete=False) as log:
        log.write(text)
    return Path(log.name)
