"""The errors that a client receives when a call fails.

The codes are those of gRPC that the protocol uses; a transport adapter maps them to its own. Every other exception is
an internal error: the client gets a short id, and the log has the traceback under that id.
"""

import logging
import secrets
from enum import Enum, unique
from typing import Final

from enginesmith_contract.errors import DeviceFailedError, InferenceError
from enginesmith_contract.log_lines import FIELDS
from enginesmith_contract.text import one_line

__all__ = ["Code", "ProtocolError", "device_failed", "inference_failed", "internal_error"]

_log = logging.getLogger(__name__)


@unique
class Code(Enum):
    """Status of a failed call. The values are the numbers of gRPC."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_INFERENCE_CODES: Final = {
    "OutOfMemory": Code.RESOURCE_EXHAUSTED,
    "RequestTooLarge": Code.RESOURCE_EXHAUSTED,
    "OutputTooLarge": Code.INVALID_ARGUMENT,
}
"""Codes of InferenceError's reasons. For all others, the cause is either the model or the values."""


class ProtocolError(Exception):
    """An error that the client receives.

    Attributes:
        code: Status of the call.
        message: One line with the tensor, what was found and what is valid.
        reason: Stable CamelCase word for counters, more specific than the code.
    """

    def __init__(self, code: Code, message: str, *, reason: str = "") -> None:
        self.code = code
        self.message = message
        self.reason = reason or code.name.title().replace("_", "")
        super().__init__(message)


def internal_error(error: BaseException, trace_id: str = "") -> ProtocolError:
    """Log `error` with its traceback and the trace of the request, and return the error for the client."""
    incident = secrets.token_hex(4)
    fields = {"trace_id": trace_id} if trace_id else {}
    _log.error("internal error %s", incident, exc_info=error, extra={FIELDS: fields})
    return ProtocolError(Code.INTERNAL, f"internal error {incident}; see the server's log for this id")


def device_failed(error: DeviceFailedError) -> ProtocolError:
    """Return the error of every request after a device failure. Another replica can answer the request."""
    return ProtocolError(
        Code.UNAVAILABLE,
        f"the device failed, and this server ends; send the request to another replica: {error.what}",
        reason="DeviceFailed",
    )


def inference_failed(error: InferenceError) -> ProtocolError:
    """Return the error for a client when only its inference failed. The engine continues."""
    code = _INFERENCE_CODES.get(error.reason, Code.INTERNAL)
    return ProtocolError(code, one_line(error.sentence()), reason=error.reason)
