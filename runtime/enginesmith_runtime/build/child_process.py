"""Starts the child, watches it, and turns every way in which it can end into a result or a sentence.

The child leads a process group of its own: a terminal's Ctrl-C does not reach it, and stopping it stops whatever it
started. It is never waited for without a limit.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError, BuildTimedOutError
from enginesmith_runtime.build.wire import ChildAnswer, ChildJob, ChildResult, replay
from enginesmith_runtime.credential_files import without_credentials
from enginesmith_runtime.local_files.space import failed_for_room, scratch_full
from enginesmith_runtime.progress import Reporter
from enginesmith_runtime.python_command import python_command

__all__ = ["run_child"]

_TICK_SECONDS: Final = 0.25
_STOP_SECONDS: Final = 0.25
"""How long a child may take to stop by itself."""
_GPU_STOP_SECONDS: Final = 3.0
"""The same for a build on a GPU: its context ends cleaner so, and what it has measured is kept for the next one."""
_READ_BYTES: Final = 1 << 16
_TAIL_CHARACTERS: Final = 2000
_STARVED: Final = (
    "bad_alloc",
    "memoryerror",
    "out of memory",
    "cudaerrormemoryallocation",
    # TensorRT's builder where not even a CUDA context fits the GPU; 2 is CUDA's number for it.
    "cuda initialization failure with error: 2.",
)
"""What libraries print, in upper or lower case, before they end the process because of missing memory."""
_TRACEBACK: Final = "Traceback (most recent call last)"
_CHUNK_BYTES: Final = 1 << 16


def run_child(job: ChildJob, folder: Path, reporter: Reporter, timeout_seconds: float) -> ChildResult:
    """Run the child to its end.

    Args:
        job: what to build.
        folder: scratch folder of this build; receives the job and the child's output.
        reporter: receives the child's progress, and is asked every quarter of a second whether to go on.
        timeout_seconds: of wall-clock time.

    Raises:
        BuildTimedOutError: it took longer.
        BuildOutOfMemoryError: the kernel killed it, or an allocation failed.
        StoreError: `DiskFull`: the scratch folder has no room.
        BuildError: it failed, crashed or was aborted by its library; what it printed last is in the message.
        EnginesmithError: whatever the child itself raised.
    """
    job_file, output_file = folder / "job.json", folder / "child.log"
    job_file.write_bytes(job.to_json())
    read_end, write_end = os.pipe()
    try:
        with output_file.open("wb") as output:
            child = _start(job_file, write_end, output.fileno())
        os.close(write_end)
        write_end = -1
        on_gpu = traits(job.request.toolchain.backend).builds_on_gpu
        with _stopped_at_the_end(child, _GPU_STOP_SECONDS if on_gpu else _STOP_SECONDS):
            _follow(child, read_end, reporter, timeout_seconds)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)
    return _interpret(child.returncode, Path(job.answer), _tail(output_file, folder))


_ENVIRONMENT: Final = {
    "CUDA_MODULE_LOADING": "LAZY",
    # TensorRT's builder fills nearly 5 GB of heap as it starts: with pages of 4 KB, more than a million page faults.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Where the caller's environment says nothing else."""


def _start(job_file: Path, descriptor: int, output: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - our own module, our own file
        python_command("enginesmith_runtime.build.child", str(job_file), str(descriptor)),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(descriptor,),
        start_new_session=True,
        env=_ENVIRONMENT | without_credentials(os.environ),
    )


def _follow(child: "subprocess.Popen[bytes]", read_end: int, reporter: Reporter, timeout_seconds: float) -> None:
    """Replay progress until the child closes the pipe, which it does by ending."""
    deadline = time.monotonic() + timeout_seconds
    rest = b""
    stage = _StageWatch(reporter)
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([read_end], [], [], min(_TICK_SECONDS, left))
        if not ready:
            stage.tick()
            continue
        data = os.read(read_end, _CHUNK_BYTES)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            replay(line, stage)
    try:
        child.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise BuildTimedOutError(
            "the build took longer than it may",
            where="build.timeout",
            why=f"it was stopped after {timeout_seconds:g} s",
            remedy="raise build.timeout or lower build.optimizationLevel",
        ) from None


class _StageWatch:
    """Passes progress on, and repeats the last progress while the child sends none, so that a reporter can cancel."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._fraction = 0.0
        self._detail = ""
        self._is_open = False

    def begin(self, stage: str, detail: str = "") -> None:
        self._fraction, self._detail, self._is_open = 0.0, "", True
        self._reporter.begin(stage, detail)

    def advance(self, fraction: float, detail: str = "") -> None:
        self._fraction, self._detail = fraction, detail
        self._reporter.advance(fraction, detail)

    def end(self, **facts: str | float | bool) -> None:
        self._is_open = False
        self._reporter.end(**facts)

    def tick(self) -> None:
        if self._is_open:
            self._reporter.advance(self._fraction, self._detail)


@contextmanager
def _stopped_at_the_end(child: "subprocess.Popen[bytes]", seconds: float) -> Iterator[None]:
    try:
        yield
    finally:
        if child.poll() is None:
            _signal_group(child, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=seconds)
        # Also after a child that ended by itself: what it started must not outlive it.
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def _interpret(code: int, answer_file: Path, said: str) -> ChildResult:
    answer = _read_answer(answer_file)
    if answer is not None and answer.failure is not None:
        raise answer.failure.to_error()
    if code == 0 and answer is not None and answer.result is not None:
        return answer.result
    if any(words in said.casefold() for words in _STARVED):
        raise BuildOutOfMemoryError(
            "the builder could not have the memory that it asked for",
            where="build",
            why=said,
            remedy="give the build more memory",
        )
    if code == -signal.SIGKILL:
        raise BuildOutOfMemoryError(
            "the builder was killed",
            where="build",
            why="SIGKILL is what the kernel sends when the memory limit is reached",
            remedy="raise the memory limit of the build, or lower build.workspace",
        )
    crash = _crash(code, said)
    raise scratch_full("the builder") if failed_for_room(crash, answer_file.parent) else crash


def _crash(code: int, said: str) -> BuildError:
    if code < 0:
        name = signal.Signals(-code).name
        aborted = code == -signal.SIGABRT
        return BuildError(
            "the builder's library aborted" if aborted else "the builder crashed",
            where="build",
            why=f"{name}; it said last: {said}" if said else name,
            remedy="check that the driver fits the library, then try another version of it",
            reason="BuilderAborted" if aborted else "BuilderCrashed",
        )
    return BuildError(
        "the builder ended without a result",
        where="build",
        why=f"exit code {code}; it said last: {said}" if said else f"exit code {code}",
        remedy="report this together with the model",
        reason="BuilderCrashed",
    )


def _read_answer(path: Path) -> ChildAnswer | None:
    try:
        return ChildAnswer.from_json(path.read_bytes())
    except (OSError, ValidationError):  # it died before or while writing
        return None


def _tail(path: Path, folder: Path) -> str:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _READ_BYTES))
        text = stream.read().decode(errors="replace")
    words = text.replace(f"{folder}{os.sep}", "").strip()
    # Of a Python traceback only the last line means something to who reads the message.
    return words.splitlines()[-1] if _TRACEBACK in words else words[-_TAIL_CHARACTERS:]
