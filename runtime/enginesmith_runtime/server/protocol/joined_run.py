"""Runs the jobs of one batch as one inference, and answers each."""

from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from enginesmith_contract.errors import DeviceFailedError
from enginesmith_runtime.engines.interface import Array, Instance, on_host
from enginesmith_runtime.server.protocol.joining import RowBytes, join_inputs, rows_of
from enginesmith_runtime.server.transport.interface import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from enginesmith_runtime.server.protocol.infer import InferJob

__all__ = ["run_joined"]


class _Run(NamedTuple):
    read_ns: int
    inferred_ns: int
    outputs: dict[str, Array]
    rows: RowBytes


def run_joined(jobs: "Sequence[InferJob]", instance: Instance) -> None:
    """Run jobs with the same `join_key`. If that fails, run each job alone, so that only the faulty ones fail."""
    started_ns = perf_counter_ns()
    try:
        run = _infer(jobs, instance)
    except DeviceFailedError as error:
        for job in jobs:
            job.fail(error)
        return
    except Exception:  # noqa: BLE001 - if each job runs alone, only the faulty requests fail
        run = None
    if run is None:
        for job in jobs:
            job.run(instance)
        return
    outcomes = _encode(jobs, run, started_ns)
    ended_ns = perf_counter_ns()
    answered = [
        job.times(started_ns, run.read_ns, run.inferred_ns, ended_ns)
        for job, outcome in zip(jobs, outcomes, strict=True)
        if isinstance(outcome, Answer)
    ]
    if answered:
        # Count before the first response is sent, because its client may then read the counters.
        jobs[0].plan.model.statistics.record_run(answered, sum(job.rows for job in jobs))
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, Answer):
            job.send(outcome)
        else:
            job.fail(outcome)


def _infer(jobs: "Sequence[InferJob]", instance: Instance) -> _Run | None:
    """Run all jobs as one inference. Return None if the outputs do not have one row for each input row."""
    plan = jobs[0].plan
    rows = [job.rows for job in jobs]
    inputs = join_inputs([job.inputs for job in jobs], instance)
    profile = plan.profile_of_rows(sum(rows))
    read_ns = perf_counter_ns()
    outputs = on_host(instance.infer(inputs, profile=profile, outputs=plan.output_names))
    inferred_ns = perf_counter_ns()
    total = sum(rows)
    plan.pace.note_joined((inferred_ns - read_ns) * plan.batch // total)
    if any(array.shape[:1] != (total,) for array in outputs.values()):
        return None
    return _Run(read_ns, inferred_ns, outputs, RowBytes([outputs[name] for name in plan.output_names]))


def _encode(jobs: "Sequence[InferJob]", run: _Run, started_ns: int) -> "list[Answer | Exception]":
    """Return the response or the error of each job."""
    outcomes: list[Answer | Exception] = []
    start = 0
    for job in jobs:
        outcome = job.encode_rows(run.rows, start)
        if outcome is None:
            part = rows_of(run.outputs, start, job.rows)
            outcomes.append(job.encode_part(part, started_ns, run.inferred_ns - run.read_ns))
        else:
            outcomes.append(outcome)
        start += job.rows
    return outcomes
