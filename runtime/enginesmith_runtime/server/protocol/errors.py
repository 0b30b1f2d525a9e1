"""What a client is told when a call fails.

The codes are those of gRPC that the protocol uses; a transport adapter maps them to its own. Whatever is not a
`ProtocolError` is a fault of ours: the client gets a short id, the log gets the traceback under that id.
"""

import logging
import secrets
from enum import Enum, unique

__all__ = ["Code", "ProtocolError", "internal_error"]

_log = logging.getLogger(__name__)


@unique
class Code(Enum):
    """How a failed call is to be handled; the values are gRPC's numbers."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class ProtocolError(Exception):
    """A refusal that the client reads.

    Attributes:
        code: how to handle it.
        message: one line naming the tensor, what was found and what would do.
    """

    def __init__(self, code: Code, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


def internal_error(error: BaseException) -> ProtocolError:
    """Log `error` with its traceback and return what the client may know of it."""
    incident = secrets.token_hex(4)
    _log.error("internal error %s", incident, exc_info=error)
    return ProtocolError(Code.INTERNAL, f"internal error {incident}; the server's log says more under this id")
