"""TensorRT's builder, created before there is a job: it fills gigabytes of memory as it starts, for 4 to 6 seconds.

It holds Python's lock meanwhile, so that a thread would stop all others: what is to run at the same time is another
process.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.engines.nvinfer.messages import create_logger

__all__ = ["StartedBuilder", "start_builder"]


class StartedBuilder(NamedTuple):
    """A builder of the library, with the log that it writes."""

    log: Any
    builder: Any


def start_builder(load: Callable[[], Any]) -> StartedBuilder | None:
    """Create a builder; None where that fails, for the build to try it and to say why.

    Args:
        load: returns the library; raises an EnginesmithError where it must not be started, as without a driver.
    """
    try:
        module = load()
        log = create_logger(module)
        return StartedBuilder(log, module.Builder(log))
    except (EnginesmithError, TypeError, RuntimeError):
        return None
