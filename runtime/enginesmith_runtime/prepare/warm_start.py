"""A warm process that has imported the libraries. Each job is a fork of it, which saves the second for the imports.

It never reads a model. Its forks are children for `run_child`: each has its own process group, standard output and log,
and a crash of one does not affect other processes.
"""

import gc
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from select import select
from typing import IO, Final

from enginesmith_runtime.child_processes import Start, adopt_parent, kill_group, python_command, start_child

__all__ = ["forked", "wait_for_job", "warm_worker"]

_NUMBER: Final = struct.Struct("q")
_MOST_BYTES: Final = 1 << 16
_TICK_SECONDS: Final = 0.05
_NO_CODE: Final = -signal.SIGKILL
"""Exit code of a fork whose end is not known because the process that waited for it was killed."""


class _Fork:
    """A fork of the warm process, with the interface of `subprocess.Popen` for waiting.

    Attributes:
        pid: Process ID of the fork, which leads a process group.
        stdout: Standard output of the fork.
        returncode: Exit code as in `subprocess.Popen`.
    """

    def __init__(self, pid: int, stdout: IO[bytes], ended: IO[bytes]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Return the exit code, or None while the fork runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the fork and return the exit code.

        Raises:
            subprocess.TimeoutExpired: The fork has not ended.
        """
        if self.returncode is None:
            if not select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a job", timeout or 0)
            self.returncode = _read_number(self._ended, _NO_CODE)
            self._ended.close()
        return self.returncode


class _WarmProcess:
    """The warm process, as its parent uses it."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests

    def fork(self, document: Path, log: IO[bytes], tick: Callable[[], None]) -> _Fork | None:
        """Return a child that does the job of a document, or None if the warm process has died.

        `tick` is called while the process is still importing. If it raises, the wait ends.
        """
        output, output_end = os.pipe()
        ended, ended_end = os.pipe()
        stdout, end = os.fdopen(output, "rb", buffering=0), os.fdopen(ended, "rb", buffering=0)
        try:
            socket.send_fds(self._requests, [os.fsencode(document)], [output_end, log.fileno(), ended_end])
        except OSError:
            pass
        finally:
            os.close(output_end)
            os.close(ended_end)
        pid = 0
        try:
            while not select([end], [], [], _TICK_SECONDS)[0]:
                tick()
            pid = _read_number(end, 0)
        finally:
            if not pid:
                stdout.close()
                end.close()
        return _Fork(pid, stdout, end) if pid else None


_WARM: ContextVar[_WarmProcess | None] = ContextVar("warm", default=None)


@contextmanager
def warm_worker(module: str, log: Path) -> Iterator[None]:
    """Start the warm process. Jobs that this thread runs in the body are forks of it.

    Args:
        module: Module that calls `wait_for_job` if it has no argument.
        log: File for the log of the process.
    """
    if sys.platform != "linux":  # libraries on macOS do not support a fork
        yield
        return
    requests, taken = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with requests:
        with taken, log.open("wb") as stderr:
            process = start_child(python_command(module), stdin=taken.fileno(), stderr=stderr)
        token = _WARM.set(_WarmProcess(requests))
        try:
            yield
        finally:
            _WARM.reset(token)
            kill_group(process)


def forked(document: Path, command: Sequence[str], tick: Callable[[], None]) -> Start:
    """Return a function that starts a job's child: as a fork of the warm process, or by its command without one.

    `tick` is called while the warm process is not ready. If it raises, the wait ends.
    """
    warm = _WARM.get()
    return lambda log: (warm and warm.fork(document, log, tick)) or start_child(command, stderr=log)


def wait_for_job(modules: tuple[str, ...]) -> str:
    """In the warm process: import modules, then fork for each job. Return only in the forks, with the job's document.

    The process runs one job at a time and reads the next one when the fork has ended. It ends with its parent.
    """
    for module in modules:
        import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page
    requests = socket.socket(fileno=os.dup(0))
    own = os.getpid()
    while True:
        document, handles, _, _ = socket.recv_fds(requests, _MOST_BYTES, 3)
        if not document:
            sys.exit(0)
        pid = os.fork()
        if not pid:
            requests.close()
            _become_child(own, handles)
            return os.fsdecode(document)
        with suppress(OSError):
            os.setpgid(pid, pid)  # before the parent knows the fork, so that it can always kill the group
        output, log, ended = handles
        os.close(output)
        os.close(log)
        with os.fdopen(ended, "wb", buffering=0) as end, suppress(BrokenPipeError):
            end.write(_NUMBER.pack(pid))
            end.write(_NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def _become_child(parent: int, handles: list[int]) -> None:
    """Use the standard output and the log of the job, and close everything of the warm process."""
    with suppress(OSError):
        os.setpgid(0, 0)
    adopt_parent(parent)
    output, log, ended = handles
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (log, 2)):
        os.dup2(source, target)
    for handle in (null, output, log, ended):
        os.close(handle)


def _read_number(stream: IO[bytes], otherwise: int) -> int:
    data = stream.read(_NUMBER.size)
    return int(_NUMBER.unpack(data)[0]) if len(data) == _NUMBER.size else otherwise
