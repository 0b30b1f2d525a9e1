"""Runs a preparation's jobs in child processes with budgets, so that the preparation survives a crash of a job.

A child writes one JSON line for each event. If the caller's `tick` raises, the child is ended.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.child_processes import ChildEnd, ChildFailure, Limits, Outcome, python_command, run_child
from enginesmith_runtime.prepare.jobs import Event, EventKind
from enginesmith_runtime.prepare.warm_start import forked

__all__ = ["WORKER", "Do", "Job", "Steps", "run_worker"]

WORKER: Final = "enginesmith_runtime.prepare.worker"

# A check or a cast reads the whole model. Only a hang takes longer.
_STEP_SECONDS: Final = 1800.0


class Job(Protocol):
    """A record that the worker accepts."""

    @property
    def job(self) -> str:
        """Kind of the job."""
        ...

    def to_json(self) -> bytes:
        """Return the job as a JSON document."""
        ...


class Do(Protocol):
    """Runs a job that must give a result; see `Steps.do`."""

    def __call__(self, job: Job, name: str, *, more_seconds: float = 0.0) -> object:
        """Return the result."""
        ...


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The jobs of one preparation.

    Attributes:
        folder: Folder that receives a folder for each step.
        model: File name of the model, for messages.
        advance: Function that often receives the completed share of the job. If it raises, the job is ended.
    """

    folder: Path
    model: str
    advance: Callable[[float], None]

    def do(self, job: Job, name: str, *, more_seconds: float = 0.0) -> object:
        """Run a job that must give a result. It is limited only by the machine and by half an hour.

        Raises:
            enginesmith_contract.errors.ModelError: `PreparationCrashed`.
        """
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        result, end = self.ask(job, folder, Limits(seconds=_STEP_SECONDS + more_seconds))
        if end.outcome is not Outcome.FINISHED or result is None:
            raise ModelError(
                f"the {name} of the model did not finish",
                where=self.model,
                why=f"{end.outcome.value} {end.detail}".strip(),
                remedy="give the preparation more memory; if it crashed, the ONNX library cannot read this model",
                reason="PreparationCrashed",
            )
        return result

    def ask(self, job: Job, folder: Path, limits: Limits) -> tuple[object, ChildEnd]:
        """Run a job within limits. Return its result, or None if there is none."""
        results: list[object] = []
        share = 1.0

        def receive(event: Event) -> None:
            nonlocal share
            if event.kind is EventKind.RESULT:
                results.append(event.data)
            elif event.kind is EventKind.PROGRESS and isinstance(event.data, float):
                share = event.data
                self.advance(share)

        def tick() -> None:
            self.advance(share)

        end = run_worker(job, folder=folder, limits=limits, tick=tick, on_event=receive)
        return (results[0] if results else None), end


def run_worker(
    job: Job, *, folder: Path, limits: Limits, tick: Callable[[], None], on_event: Callable[[Event], None]
) -> ChildEnd:
    """Run one job in a child process.

    Args:
        job: The job.
        folder: Existing folder that receives the job's document and the child's log.
        limits: Limits of the child.
        tick: Function that is called about every 50 ms. If it raises, the child is ended.
        on_event: Function that receives every event except errors.

    Raises:
        enginesmith_contract.errors.EnginesmithError: The error of the job.
    """
    document = folder / f"{job.job}.json"
    document.write_bytes(job.to_json())

    def receive(line: bytes) -> None:
        event = _event(line)
        if event is None:
            return
        if event.kind is EventKind.ERROR:
            raise ChildFailure.model_validate(event.data).to_error()
        on_event(event)

    return run_child(
        forked(document, python_command(WORKER, str(document)), tick),
        log=folder / f"{job.job}.log",
        limits=limits,
        tick=tick,
        on_line=receive,
    )


def _event(line: bytes) -> Event | None:
    try:
        return Event.from_json(line)
    except ValidationError:
        return None  # a library's own print
