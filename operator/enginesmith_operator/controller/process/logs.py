"""Log lines in JSON on stderr, each with the object that is reconciled."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from enginesmith_contract.log_lines import JsonFormatter
from enginesmith_operator.controller.shared.cache import Address

__all__ = ["configure_logging", "log_about"]

_ABOUT: Final[ContextVar[Address | None]] = ContextVar("about", default=None)


def configure_logging(*, verbose: bool) -> None:
    """Log all messages of Enginesmith and the warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(_fields))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("enginesmith_operator").setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def log_about(key: Address) -> Iterator[None]:
    """Add the kind and the key of an object to the lines of this task."""
    token = _ABOUT.set(key)
    try:
        yield
    finally:
        _ABOUT.reset(token)


def _fields() -> Mapping[str, str]:
    key = _ABOUT.get()
    return {} if key is None else {"kind": key.kind, "object": f"{key.namespace}/{key.name}"}
