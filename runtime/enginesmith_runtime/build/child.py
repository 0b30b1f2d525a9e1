"""Runs the builder in a child process, and turns every way in which it can end into a result or an error."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError, BuildTimedOutError
from enginesmith_runtime.build.wire import ChildAnswer, ChildJob, ChildResult, replay
from enginesmith_runtime.child_processes import ChildEnd, Limits, Outcome, python_command, start_child
from enginesmith_runtime.child_processes import run_child as run_limited
from enginesmith_runtime.local_files.space import failed_for_room, scratch_full
from enginesmith_runtime.progress import Reporter

__all__ = ["run_child"]

_STOP_SECONDS: Final = 0.25
"""How long a child may take to stop by itself."""
_GPU_STOP_SECONDS: Final = 3.0
"""The same for a build on a GPU: its context ends cleaner so, and what it has measured is kept for the next one."""
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


def run_child(
    request: BuildRequest, lay_out: Callable[[], ChildJob], folder: Path, reporter: Reporter
) -> tuple[ChildJob, ChildResult]:
    """Run the child to its end; its library starts while the model is laid out.

    Args:
        request: what to build.
        lay_out: brings the job's files to the local disk; what it raises ends the child.
        folder: scratch folder of this build; receives the job and the child's output.
        reporter: receives the child's progress, and is asked many times a second whether to continue.

    Raises:
        BuildTimedOutError: it took longer.
        BuildOutOfMemoryError: the kernel killed it, or an allocation failed.
        StoreError: `DiskFull`: the scratch folder has no room.
        BuildError: it failed, crashed or was aborted by its library; what it printed last is in the message.
        EnginesmithError: whatever the child itself raised.
    """
    job_file, log = folder / "job.json", folder / "child.log"
    backend, timeout_seconds = request.toolchain.backend, request.options.timeout_seconds
    # A refit needs no builder, and what it takes is less than the builder's start.
    starts_early = not request.options.refittable
    jobs: list[ChildJob] = []

    def hand_over() -> None:
        jobs.append(lay_out())
        written = job_file.with_suffix(".part")
        written.write_bytes(jobs[0].to_json())
        written.rename(job_file)

    stage = _StageWatch(reporter)
    command = python_command("enginesmith_runtime.build.worker", str(job_file), backend if starts_early else "")
    end = run_limited(
        lambda stderr: start_child(command, stderr=stderr, defaults=_ENVIRONMENT),
        log=log,
        limits=Limits(seconds=timeout_seconds),
        tick=stage.tick,
        on_line=lambda line: replay(line, stage),
        meanwhile=hand_over,
        stop_seconds=_GPU_STOP_SECONDS if traits(backend).builds_on_gpu else _STOP_SECONDS,
    )
    if end.outcome is Outcome.OUT_OF_TIME:
        can_be_lower = traits(backend).optimization_levels and request.options.optimization_level > 0
        raise BuildTimedOutError(
            "the build took longer than it may",
            where="build.timeout",
            why=f"it was stopped after {timeout_seconds:g} s",
            remedy="raise build.timeout" + (" or lower build.optimizationLevel" if can_be_lower else ""),
        )
    if end.code:
        stage.tick()  # a builder that is being stopped may crash of it, and then the stop is the cause
    return jobs[0], _interpret(end, Path(jobs[0].answer), _shorten(end.said, folder))


_ENVIRONMENT: Final = {
    "CUDA_MODULE_LOADING": "LAZY",
    # TensorRT's builder fills nearly 5 GB of heap as it starts: with pages of 4 KB, more than a million page faults.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Where the caller's environment says nothing else."""


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


def _interpret(end: ChildEnd, answer_file: Path, said: str) -> ChildResult:
    answer = _read_answer(answer_file)
    if answer is not None and answer.failure is not None:
        raise answer.failure.to_error()
    if end.code == 0 and answer is not None and answer.result is not None:
        return answer.result
    if any(words in said.casefold() for words in _STARVED):
        raise BuildOutOfMemoryError(
            "the builder could not have the memory that it asked for",
            where="build",
            why=said,
            remedy="give the build more memory",
        )
    if end.outcome is Outcome.OUT_OF_MEMORY:
        raise BuildOutOfMemoryError(
            "the builder was killed",
            where="build",
            why="SIGKILL is what the kernel sends when the memory limit is reached",
            remedy="raise the memory limit of the build, or lower build.workspace",
        )
    crash = _crash(end, said)
    raise scratch_full("the builder") if failed_for_room(crash, answer_file.parent) else crash


def _crash(end: ChildEnd, said: str) -> BuildError:
    why = f"{end.cause}; it said last: {said}" if said else end.cause
    if end.code < 0:
        aborted = end.cause == "SIGABRT"
        return BuildError(
            "the builder's library aborted" if aborted else "the builder crashed",
            where="build",
            why=why,
            remedy="check that the driver fits the library, then try another version of it",
            reason="BuilderAborted" if aborted else "BuilderCrashed",
        )
    return BuildError(
        "the builder ended without a result",
        where="build",
        why=why,
        remedy="report this together with the model",
        reason="BuilderCrashed",
    )


def _read_answer(path: Path) -> ChildAnswer | None:
    try:
        return ChildAnswer.from_json(path.read_bytes())
    except (OSError, ValidationError):  # it died before or while writing
        return None


def _shorten(said: str, folder: Path) -> str:
    words = said.replace(f"{folder}{os.sep}", "").strip()
    # Of a Python traceback only the last line means something to who reads the message.
    return words.splitlines()[-1] if _TRACEBACK in words else words[-_TAIL_CHARACTERS:]
