"""How work tells a person or a log where it stands; the terminal bar and the JSON lines are in `progress_output`."""

from typing import Protocol

__all__ = ["Fact", "Reporter", "SilentReporter"]

Fact = str | int | float | bool


class Reporter(Protocol):
    """Receives stages one after another. Any method may raise `enginesmith_contract.errors.CancelledBuildError`."""

    def begin(self, stage: str, detail: str = "") -> None:
        """Begin a stage ("fetch", "check", "exercise", "cast", "build", "verify", "store", "load", "warmUp")."""
        ...

    def advance(self, fraction: float, detail: str = "") -> None:
        """Say how much of the current stage is done, 0 to 1."""
        ...

    def end(self, **facts: Fact) -> None:
        """End the current stage with what is worth keeping in a log (sizes in bytes, counts, names)."""
        ...


class SilentReporter:
    """Reports nothing."""

    def begin(self, stage: str, detail: str = "") -> None:
        """Ignore it."""

    def advance(self, fraction: float, detail: str = "") -> None:
        """Ignore it."""

    def end(self, **facts: Fact) -> None:
        """Ignore it."""
