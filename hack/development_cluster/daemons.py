"""Programs that run in the background and outlive this command."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from development_cluster.errors import ClusterError
from development_cluster.layout import Layout

__all__ = ["URGENT", "Daemon", "Running", "enter_command", "running", "start", "start_namespaces", "stop", "wait_until"]

URGENT: Final = -5

_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A program to run in the background.

    Attributes:
        name: names its log and its pid file.
        environment: variables in addition to this process's own.
        priority: niceness; the cluster's heartbeats must not starve behind a build.
        node_pid: the first process of the node in whose namespaces it runs; None: this machine's.
    """

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    node_pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process that was started here and still runs."""

    name: str
    pid: int
    started_ticks: int


def start(layout: Layout, daemon: Daemon) -> bool:
    """Start the program unless it runs; return whether it was started."""
    if running(layout, daemon.name):
        return False
    words = [str(word) for word in daemon.command]
    if daemon.priority:
        words = ["nice", "-n", str(daemon.priority), *words]
    if daemon.node_pid is not None:
        words = [*enter_command(daemon.node_pid), *words]
    process = _spawn(layout, daemon.name, words, daemon.environment)
    # nsenter stays behind as the parent of the process that entered the process namespace.
    pid = process.pid if daemon.node_pid is None else _only_child(process, layout, daemon.name)
    _remember(layout, daemon.name, pid)
    return True


def enter_command(node_pid: int) -> list[str]:
    """Return what to put before a command that shall run in a node's namespaces."""
    return ["nsenter", f"--target={node_pid}", "--mount", "--pid", "--uts", "--"]


def start_namespaces(layout: Layout, name: str, command: Sequence[str | Path]) -> None:
    """Start a program as the first process of new mount, process and host name namespaces."""
    unshare = ["unshare", "--mount", "--pid", "--uts", "--fork", "--propagation=private", "--"]
    process = _spawn(layout, name, [*unshare, *(str(word) for word in command)], {})
    _remember(layout, name, _only_child(process, layout, name))


def running(layout: Layout, name: str) -> Running | None:
    """Return the process that was started under this name, while it runs."""
    try:
        pid, ticks = (int(word) for word in (layout.pids / name).read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    # Process ids are reused: the start time distinguishes the cluster's process from a foreign one.
    if _started_ticks(pid) != ticks:
        return None
    return Running(name=name, pid=pid, started_ticks=ticks)


def stop(layout: Layout, name: str, *, grace_seconds: float = 10, crash: bool = False) -> None:
    """End the program: SIGTERM, and SIGKILL after the grace period or for a crash."""
    found = running(layout, name)
    if found is not None:
        _signal(found.pid, signal.SIGKILL if crash else signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while running(layout, name):
            if time.monotonic() > deadline:
                _signal(found.pid, signal.SIGKILL)
                deadline += grace_seconds
            time.sleep(_POLL_SECONDS)
    (layout.pids / name).unlink(missing_ok=True)


def wait_until(
    layout: Layout, name: str, is_ready: Callable[[], bool], *, what: str, timeout_seconds: float = 300
) -> None:
    """Wait until a program does its work.

    Raises:
        ClusterError: it ended, or the time is over; with its log's last lines.
    """
    log = layout.logs / f"{name}.log"
    deadline = time.monotonic() + timeout_seconds
    while not is_ready():
        if running(layout, name) is None:
            raise ClusterError(f"{name} ended before {what}", log=log)
        if time.monotonic() > deadline:
            raise ClusterError(f"{name}: not {what} after {timeout_seconds:.0f} s", log=log)
        time.sleep(_POLL_SECONDS)


def _spawn(layout: Layout, name: str, words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (layout.logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            cwd="/",
            start_new_session=True,
        )


def _remember(layout: Layout, name: str, pid: int) -> None:
    (layout.pids / name).write_text(f"{pid} {_started_ticks(pid)}")


def _only_child(parent: subprocess.Popen[bytes], layout: Layout, name: str) -> int:
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while parent.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise ClusterError(f"{name} ended at its start", log=layout.logs / f"{name}.log")


def _started_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, in parentheses, and may hold spaces.
    state, *fields = text.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
