"""Child processes with a budget: whatever a model does to them, the preparation continues and says what happened.

A child answers with one JSON line per event on its standard output. The parent looks at it every `_TICK_SECONDS`:
memory, time, and whether the user cancelled (the caller's `tick` raises). A child is killed with its whole process
group, and dies with its parent.
"""

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from enginesmith_contract import errors
from enginesmith_runtime.credential_files import without_credentials
from enginesmith_runtime.prepare.jobs import AnyJob, Event, EventKind
from enginesmith_runtime.python_command import python_command

__all__ = ["ChildEnd", "Limits", "Outcome", "run_child", "run_worker"]

_TICK_SECONDS = 0.05
_STDERR_BYTES = 2000


class Outcome(StrEnum):
    """How a child ended."""

    FINISHED = "finished"
    OUT_OF_MEMORY = "outOfMemory"
    OUT_OF_TIME = "outOfTime"
    CRASHED = "crashed"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may take; None: no limit.

    Attributes:
        memory_bytes: private memory of the process (its mapped files cost nothing that others could use).
        seconds: wall-clock time, its start included.
    """

    memory_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ChildEnd:
    """How a child ended, and for a crash in which words ("SIGSEGV", "exit code 3: ...")."""

    outcome: Outcome
    detail: str = ""


def run_worker(
    job: AnyJob, *, folder: Path, limits: Limits, tick: Callable[[], None], on_event: Callable[[Event], None]
) -> ChildEnd:
    """Run one job in a child process.

    Args:
        job: what to do.
        folder: receives the job's document and the child's log; must exist.
        limits: of the child.
        tick: called every few hundredths of a second; what it raises ends the child.
        on_event: receives every event but errors.

    Raises:
        enginesmith_contract.errors.EnginesmithError: the one that the job ended in.
    """
    document = folder / f"{job.job}.json"
    document.write_bytes(job.to_json())

    def receive(line: bytes) -> None:
        event = _event(line)
        if event is None:
            return
        if event.kind is EventKind.ERROR:
            raise _error(event)
        on_event(event)

    command = python_command("enginesmith_runtime.prepare.worker", str(document))
    return run_child(command, log=folder / f"{job.job}.log", limits=limits, tick=tick, on_line=receive)


def run_child(
    command: Sequence[str], *, log: Path, limits: Limits, tick: Callable[[], None], on_line: Callable[[bytes], None]
) -> ChildEnd:
    """Run a command, hand over the lines of its standard output, and end it when a limit is passed.

    Args:
        command: program and arguments, never a shell's line.
        log: receives its standard error.
        limits: of the child.
        tick: called every few hundredths of a second; what it raises ends the child.
        on_line: receives each line without its end; what it raises ends the child.
    """
    deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
    with log.open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env=without_credentials(os.environ),
        )
    try:
        outcome = _follow(process, limits.memory_bytes, deadline, tick, on_line)
    finally:
        _kill(process)
    if outcome is not None:
        return ChildEnd(outcome=outcome)
    return _ending(process.returncode, log)


def _follow(
    process: "subprocess.Popen[bytes]",
    memory_bytes: int | None,
    deadline: float | None,
    tick: Callable[[], None],
    on_line: Callable[[bytes], None],
) -> Outcome | None:
    """Read until the child closes its output; returns the limit that was passed, None where none was."""
    if process.stdout is None:  # what mypy cannot know of PIPE
        return None
    descriptor = process.stdout.fileno()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            tick()
            if deadline is not None and time.monotonic() > deadline:
                return Outcome.OUT_OF_TIME
            if memory_bytes is not None and _private_bytes(process.pid) > memory_bytes:
                return Outcome.OUT_OF_MEMORY
            if not selector.select(_TICK_SECONDS):
                continue
            data = os.read(descriptor, 1 << 16)
            if not data:
                process.wait()
                return None
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                on_line(line)


def _ending(code: int, log: Path) -> ChildEnd:
    if code == 0:
        return ChildEnd(outcome=Outcome.FINISHED)
    tail = log.read_bytes()[-_STDERR_BYTES:].decode(errors="replace").strip().splitlines()
    last = tail[-1] if tail else ""
    if code == -signal.SIGKILL:
        # Only the kernel's out-of-memory killer sends it: Enginesmith's own kills are recorded before.
        return ChildEnd(outcome=Outcome.OUT_OF_MEMORY)
    if code < 0:
        return ChildEnd(outcome=Outcome.CRASHED, detail=signal.Signals(-code).name)
    return ChildEnd(outcome=Outcome.CRASHED, detail=f"exit code {code}: {last}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _private_bytes(pid: int) -> int:
    """Return the memory that only this process has, mapped files left out; 0 where the system tells nothing."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    kib = [int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(kib) * 1024


def _event(line: bytes) -> Event | None:
    try:
        return Event.from_json(line)
    except ValidationError:
        return None  # a library's own print


def _error(event: Event) -> errors.EnginesmithError:
    parts = event.data if isinstance(event.data, dict) else {"what": json.dumps(event.data)}
    words = {name: str(value) for name, value in parts.items()}
    kind: type[errors.EnginesmithError] = getattr(errors, words.get("class", ""), errors.ModelError)
    return kind(
        words.get("what", "the model could not be prepared"),
        where=words.get("where", ""),
        why=words.get("why", ""),
        remedy=words.get("remedy", ""),
        reason=words.get("reason", ""),
        retry=words.get("retry") == str(True),
    )
