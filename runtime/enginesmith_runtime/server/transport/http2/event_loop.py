"""The event loop that a transport runs on, in a thread of its own."""

import asyncio
from typing import Final

__all__ = ["LOOP_NAME", "new_event_loop"]

try:
    import uvloop
except ImportError:  # no wheel for this system, or this Python
    LOOP_NAME: Final = "asyncio"
    new_event_loop = asyncio.new_event_loop
else:
    LOOP_NAME: Final = "uvloop"  # type: ignore[misc]  # one of the two
    new_event_loop = uvloop.new_event_loop
