"""Run times of one form of request. The thread of an event loop runs only short requests itself."""

from typing import Final

__all__ = ["Pace"]

_QUICK_NS: Final = 100_000
"""Up to this time a hand-over to another thread costs as much as the run. Longer runs would delay other connections."""

_SHORT_NS: Final = 2_000_000
"""Up to this time a single client gains if its run needs no hand-over."""

_SLOW_NS: Final = 20_000_000
"""A run of this time would delay other connections."""

_UNKNOWN_NS: Final = 1 << 62

_SHARE_THAT_PAYS: Final = 0.75

_FEWEST_RUNS: Final = 16
_RUNS_FOR_EACH_SLOW_ONE: Final = 64
"""Excludes models whose run time depends on the values, but forgets a single pause of the machine."""


class Pace:
    """Records run times. Safe from any thread: a run that is recorded wrongly has no lasting effect.

    Attributes:
        is_quick: Whether the thread of an event loop may do the run.
        is_short: Whether it may do the run while there is no other call.
    """

    __slots__ = ("_fastest_joined_ns", "_fastest_ns", "_runs", "_slow", "is_quick", "is_short")

    def __init__(self) -> None:
        self.is_quick = self.is_short = False
        self._fastest_ns = self._fastest_joined_ns = _UNKNOWN_NS
        self._runs = self._slow = 0

    def note(self, ns: int) -> None:
        """Record a run. The fastest run decides, because others waited for the interpreter or a CPU."""
        self._runs += 1
        self._slow += ns > _SLOW_NS
        self._fastest_ns = min(ns, self._fastest_ns)
        steady = self._runs >= _FEWEST_RUNS and self._slow * _RUNS_FOR_EACH_SLOW_ONE <= self._runs
        self.is_quick = steady and self._fastest_ns < _QUICK_NS
        self.is_short = steady and self._fastest_ns < _SHORT_NS

    def note_joined(self, ns: int) -> None:
        """Record the share of this request in a joined run, in nanoseconds."""
        self._fastest_joined_ns = min(ns, self._fastest_joined_ns)

    @property
    def joining_pays(self) -> bool | None:
        """Whether joined runs are clearly faster than runs one after another; None if no request has run alone."""
        if self._fastest_ns == _UNKNOWN_NS:
            return None
        # Joining that was not tried yet counts as faster, so that it is tried.
        return self._fastest_joined_ns == _UNKNOWN_NS or self._fastest_joined_ns < _SHARE_THAT_PAYS * self._fastest_ns
