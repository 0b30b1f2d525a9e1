"""One JSON object a line on stderr, as log collectors read it."""

import json
import logging
import sys
from datetime import UTC, datetime

from typing_extensions import override

__all__ = ["configure_logging"]


class _JsonFormatter(logging.Formatter):
    """Time, level, logger, message and, where there is one, the traceback."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(*, verbose: bool) -> None:
    """Log all messages of Enginesmith and the warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("enginesmith_operator").setLevel(logging.DEBUG if verbose else logging.INFO)
