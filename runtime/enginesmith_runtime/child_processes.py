"""Starts, watches and ends child processes, and represents their results and errors as values.

A child leads its own process group: Ctrl-C in a terminal does not reach it, and its end also ends the processes that it
started. It writes lines for its parent to standard output. If native libraries print in a child, it calls
`open_event_stream`.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Final, Protocol, Self

from typing_extensions import override

from enginesmith_contract import errors
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.failure import Failure
from enginesmith_runtime.credential_files import without_credentials

__all__ = [
    "Child",
    "ChildEnd",
    "ChildFailure",
    "Limits",
    "Outcome",
    "Start",
    "adopt_parent",
    "die_with_parent",
    "kill_group",
    "open_event_stream",
    "python_command",
    "run_child",
    "start_child",
]

_TICK_SECONDS: Final = 0.05
_READ_BYTES: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1
_PARENT: Final = "ENGINESMITH_PARENT_PROCESS"


class Outcome(StrEnum):
    """How a child ended."""

    FINISHED = "finished"
    OUT_OF_MEMORY = "outOfMemory"
    OUT_OF_TIME = "outOfTime"
    CRASHED = "crashed"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a child; None for no limit.

    Attributes:
        memory_bytes: Private memory of the process in bytes. Mapped files are not counted, because the kernel can
            reclaim them.
        seconds: Wall-clock time in seconds, including the start.
    """

    memory_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ChildEnd:
    """How a child ended.

    Attributes:
        outcome: Outcome. A SIGKILL that the parent did not send is OUT_OF_MEMORY, because the kernel sends it.
        code: Exit code, or the negative number of the signal.
        said: End of its log.
    """

    outcome: Outcome
    code: int = 0
    said: str = ""

    @classmethod
    def from_code(cls, code: int, *, said: str = "") -> "ChildEnd":
        """Return the end of a child that ended by itself."""
        if code == -signal.SIGKILL:
            return cls(outcome=Outcome.OUT_OF_MEMORY, code=code, said=said)
        return cls(outcome=Outcome.CRASHED if code else Outcome.FINISHED, code=code, said=said)

    @property
    def cause(self) -> str:
        """The signal ("SIGSEGV") or the exit code ("exit code 3")."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"

    @property
    def detail(self) -> str:
        """The cause of a crash, or the last line of the log after an exit code; else empty."""
        if self.outcome is not Outcome.CRASHED:
            return ""
        last = self.said.splitlines()[-1:] if self.code > 0 else []
        return ": ".join([self.cause, *last])


class ChildFailure(Failure):
    """A `Failure` that a child sends its parent, which raises it again.

    Attributes:
        kind: Name of the error's class.
    """

    kind: str

    @classmethod
    @override
    def from_error(cls, error: EnginesmithError) -> Self:
        """Return `error` as a value."""
        return cls(kind=type(error).__name__, **Failure.from_error(error).model_dump())

    def to_error(self) -> EnginesmithError:
        """Return the error as it was raised in the child."""
        kind = getattr(errors, self.kind, EnginesmithError)
        error: EnginesmithError = kind(
            self.what, where=self.where, why=self.why, remedy=self.remedy, reason=self.reason, retry=self.retry
        )
        return error


class Child(Protocol):
    """Interface of a child: a `subprocess.Popen`, or a process that another process forked."""

    @property
    def pid(self) -> int:
        """Process ID of the child, which leads a process group."""
        ...

    @property
    def stdout(self) -> IO[bytes] | None:
        """Standard output of the child."""
        ...

    @property
    def returncode(self) -> int | None:
        """Exit code as in `subprocess.Popen`."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, or None while the child runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the child and return the exit code."""
        ...


Start = Callable[[IO[bytes]], Child]
"""Function that starts a child. Its argument is the child's log."""


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command of a child that runs a module, as isolated as this process: no import from the working folder.

    With `-I`, PYTHONPATH is also ignored.
    """
    return [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module, *arguments]


def start_child(
    command: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stderr: IO[bytes] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child with a pipe as its standard output.

    Args:
        command: Program and arguments, never a shell command.
        stdin: Standard input as for `subprocess.Popen`.
        stderr: File for its standard error; None for that of this process.
        defaults: Variables of the child that this process's environment overrides.
    """
    return subprocess.Popen(  # noqa: S603 - our own interpreter and modules, no shell
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        env={**(defaults or {}), **without_credentials(os.environ), _PARENT: str(os.getpid())},
    )


def run_child(
    command: Sequence[str] | Start,
    *,
    log: Path,
    limits: Limits,
    tick: Callable[[], None],
    on_line: Callable[[bytes], None],
    meanwhile: Callable[[], None] = lambda: None,
    stop_seconds: float = 0.0,
) -> ChildEnd:
    """Run a command, process the lines of its standard output, and end it when it exceeds a limit.

    Args:
        command: Program and arguments, never a shell command; or a function that starts the child.
        log: File for its standard error.
        limits: Limits of the child.
        tick: Function that is called about every 50 ms. If it raises, the child is ended.
        on_line: Function that receives each line without its line end. If it raises, the child is ended.
        meanwhile: Function that is called once while the child starts. Limits apply after it returns. If it raises, the
            child is ended.
        stop_seconds: Seconds between SIGTERM and SIGKILL when the child is ended; 0 to send SIGKILL at once.
    """
    with log.open("wb") as stderr:
        child = command(stderr) if callable(command) else start_child(command, stderr=stderr)
    try:
        meanwhile()
        passed = _follow(child, limits, tick, on_line)
    finally:
        if stop_seconds and child.poll() is None:
            _signal_group(child, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(stop_seconds)
        kill_group(child)
    end = ChildEnd.from_code(child.wait(), said=_tail(log))
    return end if passed is None else replace(end, outcome=passed)


def kill_group(child: Child) -> None:
    """Kill a child and the processes that it started, even if the child has ended, and close its standard output."""
    _signal_group(child, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def die_with_parent() -> None:
    """In a child: let Linux kill this process when its parent ends, so that no orphan holds memory or a GPU."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the call.
    if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):
        os._exit(1)


def adopt_parent(parent: int) -> None:
    """In a fork of a child: set the forking process as the parent for `die_with_parent`."""
    os.environ[_PARENT] = str(parent)


def open_event_stream() -> IO[bytes]:
    """In a child: return its standard output, unbuffered, for events only. All other output goes to standard error."""
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return events


def _follow(child: Child, limits: Limits, tick: Callable[[], None], on_line: Callable[[bytes], None]) -> Outcome | None:
    """Wait for the end of the child. Return the limit that it exceeded, or None."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            tick()
            if deadline is not None and time.monotonic() > deadline:
                return Outcome.OUT_OF_TIME
            if limits.memory_bytes is not None and _private_bytes(child.pid) > limits.memory_bytes:
                return Outcome.OUT_OF_MEMORY
            has_ended = child.poll() is not None
            if not selector.select(0 if has_ended else _TICK_SECONDS):
                # A process that the child started may keep the pipe open.
                if has_ended:
                    return None
                continue
            data = os.read(child.stdout.fileno(), _READ_BYTES)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                on_line(line)
    while child.poll() is None:
        tick()
        if deadline is not None and time.monotonic() > deadline:
            return Outcome.OUT_OF_TIME
        with suppress(subprocess.TimeoutExpired):
            child.wait(_TICK_SECONDS)
    return None


def _signal_group(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _private_bytes(pid: int) -> int:
    """Return the private memory of a process in bytes without mapped files, or 0 if it is not known."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    kib = [int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(kib) * 1024


def _tail(log: Path) -> str:
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _READ_BYTES))
        return stream.read().decode(errors="replace").strip()
