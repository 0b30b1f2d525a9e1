"""Passes the library's progress to a ProgressSink, and cancels the build if the sink stops it."""

from typing import Any

from enginesmith_runtime.engines.interface import ProgressSink

__all__ = ["create_monitor"]


def create_monitor(module: Any, sink: ProgressSink, root: str) -> Any:
    """Return an IProgressMonitor with the attribute `cancelled`. Top-level phases become children of `root`."""

    class _Monitor(module.IProgressMonitor):  # type: ignore[misc]  # the base is known at run time only
        """Called from several threads of the builder."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.cancelled = False

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            sink.phase(name, steps=steps, parent=parent or root)

        def step_complete(self, name: str, step: int) -> bool:
            if not sink.step(name, step):
                self.cancelled = True
            return not self.cancelled

        def phase_finish(self, name: str) -> None:
            sink.finish(name)

    return _Monitor()
