"""A reporter that stores the digest of the fetched model, so that the report of a later failure can contain it."""

from enginesmith_runtime.progress import Fact, Reporter

__all__ = ["SourceWatch"]

_STAGE = "fetch"


class SourceWatch:
    """Passes all calls to another reporter.

    Attributes:
        source_digest: Digest of the model and its external weights; None before the fetch.
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
        """Report the completed fraction of the stage."""
        self._reporter.advance(fraction, detail)

    def end(self, **facts: Fact) -> None:
        """End the stage."""
        if self._stage == _STAGE and "digest" in facts:
            self.source_digest = str(facts["digest"])
        self._reporter.end(**facts)
