"""The answer to come of one call, whichever wire the call came by."""

import threading
from collections.abc import Callable

from enginesmith_runtime.server.errors import ProtocolError, internal_error
from enginesmith_runtime.server.tracing import trace_id
from enginesmith_runtime.server.transport.interface import Answer, Body, Call, CallContext, Reply

__all__ = ["Outcome", "Pending", "begin"]

Outcome = Answer | ProtocolError


class Pending:
    """What a call's thread waits for; `run` and `reply` may be called before or after `wait`, from any thread."""

    __slots__ = ("_outcome", "_woken", "_work")

    def __init__(self) -> None:
        # A bare lock costs a fraction of an Event.
        self._woken = threading.Lock()
        self._woken.acquire()
        self._outcome: Outcome | None = None
        self._work: Callable[[], None] | None = None

    def reply(self, outcome: Outcome) -> None:
        """Set the outcome."""
        self._outcome = outcome
        self._woken.release()

    def run(self, work: Callable[[], None]) -> None:
        """Let the thread that waits do `work`, which replies."""
        self._work = work
        self._woken.release()

    def wait(self) -> Outcome:
        """Return the outcome, after having done the work that was left to this thread."""
        self._woken.acquire()
        if self._outcome is None:
            # Not kept: the work knows the request and the request knows this, so that only the collector could free it.
            work, self._work = self._work, None
            assert work is not None  # noqa: S101 - the lock is released after one of them is set
            work()
            self._woken.acquire()
        assert self._outcome is not None  # noqa: S101 - the same
        return self._outcome


def begin(call: Call, data: Body, context: CallContext, reply: Reply) -> None:
    """Call a handler; whatever it raises is the answer."""
    try:
        call(data, context, reply)
    except ProtocolError as refusal:
        reply(refusal)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an id and the log the rest
        reply(internal_error(error, trace_id(context.metadata())))
