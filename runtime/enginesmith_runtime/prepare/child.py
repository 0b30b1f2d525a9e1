"""A preparation's jobs in child processes with budgets: whatever a model does to one, the preparation continues.

A child answers with one JSON line for each event. What the caller's `tick` raises ends it.
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

# A check or a cast reads the whole model; nothing but a hang takes longer.
_STEP_SECONDS: Final = 1800.0


class Job(Protocol):
    """A record that the worker knows."""

    @property
    def job(self) -> str:
        """Its kind."""
        ...

    def to_json(self) -> bytes:
        """Return its document."""
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
        folder: receives a folder for each step.
        model: file name of the model, for messages.
        advance: called often with the share of the job that is done; what it raises ends the job.
    """

    folder: Path
    model: str
    advance: Callable[[float], None]

    def do(self, job: Job, name: str, *, more_seconds: float = 0.0) -> object:
        """Run a job that must give a result; its only limits are those of the machine, and half an hour.

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
        """Run a job within limits; returns its result, None where there is none."""
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
