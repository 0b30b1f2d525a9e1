"""How long the runs of one form of request take: an event loop does only those itself that are short."""

from typing import Final

__all__ = ["Pace"]

_QUICK_NS: Final = 100_000
"""Up to this a hand-over to another thread costs as much as the run. Beyond it several runs at once, or one of a batch,
are faster, and other connections would feel it."""

_SHORT_NS: Final = 2_000_000
"""Up to this a client that calls alone gains by the hand-over that its run does without."""

_SLOW_NS: Final = 20_000_000
"""A run this long would be felt by them."""

_UNKNOWN_NS: Final = 1 << 62

_SHARE_THAT_PAYS: Final = 0.75

_FEWEST_RUNS: Final = 16
_RUNS_FOR_EACH_SLOW_ONE: Final = 64
"""A model whose time depends on its values is not quick, and a pause of the machine is forgotten."""


class Pace:
    """Counts runs. Safe from any thread: a run that is counted wrongly changes nothing that lasts.

    Attributes:
        is_quick: whether an event loop may do the run.
        is_short: whether it may while no other call is there.
    """

    __slots__ = ("_fastest_joined_ns", "_fastest_ns", "_runs", "_slow", "is_quick", "is_short")

    def __init__(self) -> None:
        self.is_quick = self.is_short = False
        self._fastest_ns = self._fastest_joined_ns = _UNKNOWN_NS
        self._runs = self._slow = 0

    def note(self, ns: int) -> None:
        """Count a run. The fastest one decides, for others waited for the interpreter or a processor."""
        self._runs += 1
        self._slow += ns > _SLOW_NS
        self._fastest_ns = min(ns, self._fastest_ns)
        steady = self._runs >= _FEWEST_RUNS and self._slow * _RUNS_FOR_EACH_SLOW_ONE <= self._runs
        self.is_quick = steady and self._fastest_ns < _QUICK_NS
        self.is_short = steady and self._fastest_ns < _SHORT_NS

    def note_joined(self, ns: int) -> None:
        """Count a run with others, of which so much is this request's part."""
        self._fastest_joined_ns = min(ns, self._fastest_joined_ns)

    @property
    def joining_pays(self) -> bool | None:
        """Whether a run with others is clearly shorter than runs one after another; None: none has run alone yet."""
        if self._fastest_ns == _UNKNOWN_NS:
            return None
        # What was not tried yet is.
        return self._fastest_joined_ns == _UNKNOWN_NS or self._fastest_joined_ns < _SHARE_THAT_PAYS * self._fastest_ns
