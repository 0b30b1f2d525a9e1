"""The queue before a model's instances: its order, and the thread that a job runs on."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.instance_pool import InstancePool, Job
from enginesmith_runtime.server.transport.interface import CallContext

_NO_INSTANCE: Any = SimpleNamespace(close=lambda: None)  # a job gets it and does not look at it


class _Caller(CallContext):
    """A call whose thread waits in `serve` for work, as a transport's does."""

    def __init__(self, *, may_run_here: bool) -> None:
        super().__init__(may_run_here=may_run_here)
        self._woken = threading.Event()
        self._work: Callable[[], None] | None = None

    @override
    def run_here(self, work: Callable[[], None]) -> None:
        self._work = work
        self._woken.set()

    def serve(self) -> None:
        assert self._woken.wait(120)
        assert self._work is not None
        self._work()


class _Job(Job):
    def __init__(self, context: CallContext, name: str, seen: list[tuple[str, str]]) -> None:
        super().__init__(context)
        self._name, self._seen = name, seen
        self.begun, self.may_end, self.answered = threading.Event(), threading.Event(), threading.Event()
        self.refused: ProtocolError | None = None

    @override
    def run(self, instance: object) -> None:
        del instance
        self._seen.append((self._name, threading.current_thread().name))
        self.begun.set()
        assert self.may_end.wait(120)

    @override
    def refuse(self, error: ProtocolError) -> None:
        self.refused = error
        self.answered.set()


@pytest.mark.parametrize("first", ["unary", "stream"])
def test_jobs_run_in_their_order_each_on_the_thread_that_it_may(first: str) -> None:
    pool = InstancePool([_NO_INSTANCE], queue_limit=8, name="pool")
    seen: list[tuple[str, str]] = []
    kinds = {"unary": ("unary", "stream", "unary", "unary"), "stream": ("stream", "stream", "unary", "stream")}[first]
    jobs, threads = [], []
    for number, kind in enumerate(kinds):
        caller = _Caller(may_run_here=kind == "unary")
        job = _Job(caller, f"{number}", seen)
        jobs.append(job)
        if number == 0:
            thread = threading.Thread(target=pool.submit, args=(job,), name="caller-0")
            thread.start()
            threads.append(thread)
            assert job.begun.wait(120)
            continue
        pool.submit(job)
        if kind == "unary":
            thread = threading.Thread(target=caller.serve, name=f"caller-{number}")
            thread.start()
            threads.append(thread)
    assert (pool.running, pool.waiting) == (1, 3)
    for job in jobs:
        assert job.begun.wait(120)
        assert pool.running == 1
        job.may_end.set()
    for thread in threads:
        thread.join(120)
    pool.close(120)
    on = {"unary": "caller-{}", "stream": "pool-0"}
    assert seen == [(f"{number}", on[kind].format(number)) for number, kind in enumerate(kinds)]


def test_what_waits_is_refused_when_the_pool_is_told_to_and_what_runs_ends() -> None:
    pool = InstancePool([_NO_INSTANCE], queue_limit=8, name="pool")
    seen: list[tuple[str, str]] = []
    running, waiting, late = (_Job(_Caller(may_run_here=True), name, seen) for name in ("running", "waiting", "late"))
    thread = threading.Thread(target=pool.submit, args=(running,))
    thread.start()
    assert running.begun.wait(120)
    pool.submit(waiting)
    pool.refuse_all(ProtocolError(Code.UNAVAILABLE, "broken", reason="DeviceFailed"))
    assert waiting.refused is not None
    assert (waiting.refused.code, waiting.refused.reason) == (Code.UNAVAILABLE, "DeviceFailed")
    pool.refuse_all(ProtocolError(Code.UNAVAILABLE, "shutting down"))
    with pytest.raises(ProtocolError) as caught:
        pool.submit(late)
    assert caught.value.reason == "DeviceFailed"
    running.may_end.set()
    thread.join(120)
    assert [name for name, _ in seen] == ["running"]


def test_who_waits_too_long_is_told_while_the_instance_is_still_busy() -> None:
    pool = InstancePool([_NO_INSTANCE], queue_limit=2, name="pool")
    seen: list[tuple[str, str]] = []
    running, late, patient = (_Job(_Caller(may_run_here=False), name, seen) for name in ("running", "late", "patient"))
    pool.submit(running)
    assert running.begun.wait(120)
    late.context.deadline = time.monotonic() + 0.02
    pool.submit(patient)
    pool.submit(late)
    assert late.answered.wait(120)
    assert late.refused is not None
    assert (late.refused.code, pool.waiting) == (Code.DEADLINE_EXCEEDED, 1)
    # Its place in the queue is free again.
    late_again = _Job(_Caller(may_run_here=False), "again", seen)
    late_again.context.deadline = time.monotonic() + 0.02
    pool.submit(late_again)
    assert late_again.answered.wait(120)
    for job in (running, patient):
        job.may_end.set()
        assert job.begun.wait(120)
    pool.close(120)
    assert [name for name, _ in seen] == ["running", "patient"]
