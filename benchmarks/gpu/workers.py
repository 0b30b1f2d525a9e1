"""Processes that measure in turn: each waits for a line with seconds, runs for that long, and answers with a line.

So two things are measured side by side in one run, A B A B, and a machine that slows down slows both.
"""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Self

__all__ = ["Turns", "Worker", "run_together", "serve_turns", "started", "started_where_possible"]


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What one round gave.

    Attributes:
        rate: turns a second.
        p50: median of one turn in seconds.
    """

    rate: float
    p50: float

    @classmethod
    def of(cls, took: Sequence[float]) -> Self:
        """Return the figures of turns that followed each other."""
        return cls(rate=len(took) / sum(took), p50=statistics.median(took))


def serve_turns(turns: Callable[[float], Turns]) -> None:
    """Say that this worker is ready, then run for as long as each line says."""
    turns(0.2)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(turns(float(line)))), flush=True)


class Worker:
    """A worker from outside."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_ready(self) -> None:
        """Wait until it has started.

        Raises:
            RuntimeError: it ended before.
        """
        if self._line() != "ready":
            raise RuntimeError(f"a worker ended: {self._process.args!r}")

    def begin(self, seconds: float) -> None:
        """Let it run."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def result(self) -> Turns:
        """Return what it found."""
        return Turns(**json.loads(self._line()))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def started(*commands: Sequence[str]) -> Iterator[list[Worker]]:
    """Give workers that are ready; they end with the block. A command is what follows `python -m`."""
    workers = [Worker([sys.executable, "-m", *command]) for command in commands]
    try:
        for worker in workers:
            worker.wait_ready()
        yield workers
    finally:
        for worker in workers:
            worker.close()


@contextlib.contextmanager
def started_where_possible(*commands: Sequence[str]) -> Iterator[list[Worker | None]]:
    """Yield workers that are ready; None stands for a worker that has already ended."""
    workers = [Worker([sys.executable, "-m", *command]) for command in commands]
    ready: list[Worker | None] = list(workers)
    try:
        for index, worker in enumerate(workers):
            try:
                worker.wait_ready()
            except RuntimeError:
                ready[index] = None
        yield ready
    finally:
        for worker in workers:
            worker.close()


def run_together(workers: Sequence[Worker], seconds: float) -> Turns:
    """Let all run at once; the rates add up, the p50 is the median of theirs."""
    for worker in workers:
        worker.begin(seconds)
    found = [worker.result() for worker in workers]
    return Turns(rate=sum(one.rate for one in found), p50=statistics.median(one.p50 for one in found))
