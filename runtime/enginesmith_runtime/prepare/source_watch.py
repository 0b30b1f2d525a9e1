"""A reporter that remembers what was fetched, so that a failure that comes later can still say which model it was."""

from enginesmith_runtime.progress import Fact, Reporter

__all__ = ["SourceWatch"]

_STAGE = "fetch"


class SourceWatch:
    """Hands everything on to another reporter.

    Attributes:
        source_digest: of the model and its external weights; None: it was not had yet.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._stage = ""
        self.source_digest: str | None = None

    def begin(self, stage: str, detail: str = "") -> None:
        """Begin a stage."""
        self._stage = stage
        self._reporter.begin(stage, detail)

    def advance(self, fraction: float, detail: str = "") -> None:
        """Say how much of the stage is done."""
        self._reporter.advance(fraction, detail)

    def end(self, **facts: Fact) -> None:
        """End the stage."""
        if self._stage == _STAGE and "digest" in facts:
            self.source_digest = str(facts["digest"])
        self._reporter.end(**facts)
