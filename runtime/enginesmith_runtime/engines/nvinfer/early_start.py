"""Creates TensorRT's builder before there is a job, because its start takes 4 to 6 seconds and gigabytes of memory.

The start holds Python's lock and would block all other threads, so parallel work must be in another process.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.engines.nvinfer.messages import create_logger

__all__ = ["StartedBuilder", "start_builder"]


class StartedBuilder(NamedTuple):
    """A builder of the library with its log."""

    log: Any
    builder: Any


def start_builder(load: Callable[[], Any]) -> StartedBuilder | None:
    """Create a builder, or return None if this fails. The build then tries again and reports the error.

    Args:
        load: Function that returns the library, or raises an EnginesmithError if it must not start (without a driver).
    """
    try:
        module = load()
        log = create_logger(module)
        return StartedBuilder(log, module.Builder(log))
    except (EnginesmithError, TypeError, RuntimeError):
        return None
