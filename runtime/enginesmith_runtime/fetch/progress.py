"""Converts byte counts of one file to the progress for a reporter."""

from enginesmith_runtime.local_files.space import say_bytes
from enginesmith_runtime.progress import Reporter

__all__ = ["Advance"]


class Advance:
    """Adds up a file's bytes and reports whole percents. Call it with the number of bytes of each chunk."""

    def __init__(self, reporter: Reporter, name: str, total_bytes: int | None, done_bytes: int = 0) -> None:
        self._reporter = reporter
        self._name = name
        self._total_bytes = total_bytes
        self._done_bytes = done_bytes
        self._percent = -1

    def __call__(self, count: int) -> None:
        """Add a chunk of `count` bytes."""
        self._done_bytes += count
        if not self._total_bytes:
            return
        percent = min(100, 100 * self._done_bytes // self._total_bytes)
        if percent > self._percent:
            self._percent = percent
            self._reporter.advance(percent / 100, f"{self._name}, {say_bytes(self._total_bytes)}")
