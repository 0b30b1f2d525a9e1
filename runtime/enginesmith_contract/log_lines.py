"""One JSON object a line, as log collectors read it."""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from typing_extensions import override

from enginesmith_contract import environment

__all__ = ["FIELDS", "JsonFormatter", "log_to_stderr"]

FIELDS: Final = "enginesmith_fields"
"""Attribute of a record with further fields of its line, by name; given as `extra={FIELDS: ...}`."""


def _nothing() -> Mapping[str, str]:
    return {}


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, further fields and, where there is one, the traceback.

    Args:
        context: returns the fields of every line that is written at this moment.
    """

    def __init__(self, context: Callable[[], Mapping[str, str]] = _nothing) -> None:
        super().__init__()
        self._context = context

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr() -> None:
    """Log all messages from INFO on: as text where LOG_FORMAT says so or a person looks, else as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    log_format = os.environ.get(environment.LOG_FORMAT, "auto")
    if log_format == "text" or (log_format == "auto" and sys.stderr.isatty()):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    else:
        served = os.environ.get(environment.OBJECT)
        fields = {"object": served} if served else {}
        handler.setFormatter(JsonFormatter(lambda: fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
