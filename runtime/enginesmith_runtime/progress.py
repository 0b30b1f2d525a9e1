"""Interface for progress reports. `progress_output` implements the terminal bar and the JSON lines."""

from typing import Protocol

__all__ = ["Fact", "Reporter", "SilentReporter"]

Fact = str | int | float | bool


class Reporter(Protocol):
    """Receives stages one after another. Any method may raise `enginesmith_contract.errors.CancelledBuildError`."""

    def begin(self, stage: str, detail: str = "") -> None:
        """Begin a stage ("fetch", "check", "exercise", "cast", "build", "verify", "store", "load", "warmUp")."""
        ...

    def advance(self, fraction: float, detail: str = "") -> None:
        """Report the completed fraction of the current stage, 0 to 1."""
        ...

    def end(self, **facts: Fact) -> None:
        """End the current stage with facts for the log (sizes in bytes, counts, names)."""
        ...


class SilentReporter:
    """Reports nothing."""

    def begin(self, stage: str, detail: str = "") -> None:
        """Do nothing."""

    def advance(self, fraction: float, detail: str = "") -> None:
        """Do nothing."""

    def end(self, **facts: Fact) -> None:
        """Do nothing."""
