"""Log lines as log collectors read them: one JSON object on each line."""

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
"""Attribute of a log record with additional fields of its line, by name. Pass it as `extra={FIELDS: ...}`."""


def _nothing() -> Mapping[str, str]:
    return {}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON with time, level, logger, message, additional fields and the traceback if there is one.

    Args:
        context: Function that returns the fields to add to the current line.
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
    """Log messages of level INFO and above: as text if LOG_FORMAT says so or on a terminal, otherwise as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    log_format = os.environ.get(environment.LOG_FORMAT, "auto")
    if log_format == "text" or (log_format == "auto" and sys.stderr.isatty()):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    else:
        served = os.environ.get(environment.OBJECT)
        fields = {"object": served} if served else {}
        handler.setFormatter(JsonFormatter(lambda: fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
