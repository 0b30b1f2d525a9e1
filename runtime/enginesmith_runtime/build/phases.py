"""One fraction out of a native builder's nested phases.

TensorRT reports phases within phases from several threads, and neither their names nor their number is stable between
versions. So a phase counts as its finished steps plus what its running children have done of one step each, and the
sum never goes back.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from enginesmith_runtime.progress import Reporter

__all__ = ["PhaseProgress"]

_INTERVAL_SECONDS = 0.1


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0
    children: "dict[str, _Phase]" = field(default_factory=dict)

    def fraction(self) -> float:
        """Return the part that is done, 0 to 1."""
        running = sum(child.fraction() for child in self.children.values())
        return min(1.0, (self.done + min(running, 1.0)) / max(1, self.steps))


class PhaseProgress:
    """A ProgressSink that reports one fraction, at most ten times a second."""

    def __init__(
        self,
        reporter: Reporter,
        is_cancelled: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reporter = reporter
        self._is_cancelled = is_cancelled
        self._clock = clock
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._root: _Phase | None = None
        self._shown = 0.0
        self._next_report = 0.0

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Begin a phase; one without a known parent belongs to the first phase of all."""
        with self._lock:
            phase = _Phase(name=name, steps=steps)
            above = self._phases.get(parent) if parent is not None else None
            self._phases[name] = phase
            if self._root is None:
                self._root = phase
            elif phase is not (above := above or self._root):
                above.children[name] = phase
        self._report(name)

    def step(self, name: str, step: int) -> bool:
        """Count a finished step, numbered from 0. Returns False when the builder must stop."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = max(phase.done, min(step + 1, phase.steps))
                # A finished step holds what its children had done of it.
                phase.children.clear()
        self._report(name)
        return not self._is_cancelled()

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = phase.steps
        self._report(name)

    def _report(self, detail: str) -> None:
        with self._lock:
            now = self._clock()
            if self._root is None or now < self._next_report:
                return
            self._next_report = now + _INTERVAL_SECONDS
            self._shown = max(self._shown, self._root.fraction())
            self._reporter.advance(self._shown, detail)
