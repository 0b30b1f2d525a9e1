"""A connection's account of frames that make work and carry no call, so that no flood of them costs the others much.

Known floods: resets right after requests (CVE-2023-44487), CONTINUATION, PING, SETTINGS, PRIORITY, empty DATA, and
WINDOW_UPDATE of a byte. Each such frame costs a point or more; calls that are answered and time give points back.
"""

from typing import Final

from enginesmith_runtime.server.transport.http2.faults import ConnectionFault
from enginesmith_runtime.server.transport.http2.wire import ErrorCode

__all__ = ["RESET_POINTS", "Patience"]

_POINTS_OF_A_CALL: Final = 8
"""Clients update windows and ping as they call: up to four such frames a call were seen."""

RESET_POINTS: Final = 10
"""A request that is reset has been begun: a thousand of these a second."""


class Patience:
    """Counts for one connection."""

    __slots__ = ("_most", "_points")

    def __init__(self, points: int) -> None:
        # In a second. At a few microseconds a frame, 10,000 take less than a tenth of a processor.
        self._most = self._points = points

    def spend(self, what: str, points: int = 1) -> None:
        """Note a frame.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM; there were too many.
        """
        self._points -= points
        if self._points < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many frames that carry no call; the last: {what}")

    def earn(self) -> None:
        """Note an answered call."""
        if self._points < self._most:
            self._points += _POINTS_OF_A_CALL

    def renew(self) -> None:
        """Note that a second has passed."""
        self._points = self._most
