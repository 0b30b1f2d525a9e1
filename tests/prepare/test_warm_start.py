"""Jobs are forks of one process that has the libraries, and they run without it where it died."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.errors import CancelledBuildError
from enginesmith_runtime.child_processes import Limits, Outcome, run_child
from enginesmith_runtime.prepare.child import WORKER, run_worker
from enginesmith_runtime.prepare.jobs import Event, EventKind, InspectJob
from enginesmith_runtime.prepare.warm_start import forked, warm_worker

MakeModel = Callable[..., Path]
_LIMITS = Limits(seconds=300)


@pytest.fixture
def job(make_model: MakeModel, tmp_path: Path) -> InspectJob:
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, ["n", 4])},
        outputs={"y": (TensorProto.FLOAT, ["n", 4])},
        weights={"w": np.ones((4, 4), dtype=np.float32)},
    )
    return InspectJob(model=str(model), output=str(tmp_path))


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]


def test_a_job_runs_without_the_warm_process_where_it_died(job: InspectJob, tmp_path: Path) -> None:
    events: list[Event] = []
    before = set(children())
    with warm_worker(WORKER, tmp_path / "worker.log"):
        [warm] = set(children()) - before
        for alive in (True, True, False):
            if not alive:
                os.kill(warm, signal.SIGKILL)
            end = run_worker(job, folder=tmp_path, limits=_LIMITS, tick=lambda: None, on_event=events.append)
            assert end.outcome is Outcome.FINISHED
    assert [event.kind for event in events] == [EventKind.RESULT] * 3
    assert events[0] == events[1] == events[2]
    assert set(children()) <= before


def test_a_job_is_a_fork_of_the_warm_process_which_outlives_its_crash(job: InspectJob, tmp_path: Path) -> None:
    events: list[Event] = []
    before = set(children())
    document = tmp_path / "job"
    os.mkfifo(document)  # to read it takes until the end
    with warm_worker(WORKER, tmp_path / "worker.log"):
        [warm] = set(children()) - before

        def crash() -> None:
            fork = Path(f"/proc/{warm}/task/{warm}/children").read_text(encoding="ascii")
            if fork:
                os.kill(int(fork), signal.SIGSEGV)

        end = run_child(
            forked(document, ["false"], lambda: None),
            log=tmp_path / "log",
            limits=_LIMITS,
            tick=crash,
            on_line=lambda _: None,
        )
        assert (end.outcome, end.cause) == (Outcome.CRASHED, "SIGSEGV")
        end = run_worker(job, folder=tmp_path, limits=_LIMITS, tick=lambda: None, on_event=events.append)
    assert end.outcome is Outcome.FINISHED
    assert [event.kind for event in events] == [EventKind.RESULT]


def test_a_cancel_does_not_wait_for_the_warm_process(job: InspectJob, tmp_path: Path) -> None:
    def cancel() -> None:
        raise CancelledBuildError("the preparation was cancelled")

    before = set(children())
    with warm_worker(WORKER, tmp_path / "worker.log"):
        [warm] = set(children()) - before
        os.kill(warm, signal.SIGSTOP)
        with pytest.raises(CancelledBuildError):
            run_worker(job, folder=tmp_path, limits=_LIMITS, tick=cancel, on_event=lambda _: None)
    assert set(children()) <= before
