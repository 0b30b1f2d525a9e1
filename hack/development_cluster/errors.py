"""The error that `hack/cluster` shows to users."""

from pathlib import Path

__all__ = ["ClusterError", "last_lines"]


class ClusterError(Exception):
    """A step failed.

    Attributes:
        remedy: what to do about it; empty where that is not known yet.
        log: the failing program's log, whose last lines are shown.
    """

    def __init__(self, message: str, *, remedy: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.log = log

    def explain(self) -> str:
        """Return the message with the remedy and the end of the log."""
        text = str(self)
        if self.remedy:
            text += f"\n  {self.remedy}"
        if self.log is not None:
            text += f"\n  {self.log}:\n{last_lines(self.log)}"
        return text


def last_lines(log: Path, count: int = 20) -> str:
    """Return the end of a log, indented; a sentence where there is none."""
    if not log.exists():
        return "    (no log)"
    lines = log.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line[:400]}" for line in lines) or "    (empty)"
