"""Quick jobs that arrive together run as one inference, on the thread that brought them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override

from enginesmith_contract.serve_request import BatchingOptions
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.instance_pool import InstancePool, Job
from enginesmith_runtime.server.transport.interface import CallContext

_INSTANCE: Any = SimpleNamespace(close=lambda: None)  # a job gets it and does not look at it


class _Read:
    """What a transport has read at once: it runs what was gathered when it has read all of it."""

    def __init__(self) -> None:
        self._gathered: dict[Callable[[Sequence[Any]], None], list[Any]] = {}

    def add(self, run: Callable[[Sequence[Any]], None], item: object) -> None:
        self._gathered.setdefault(run, []).append(item)

    def end(self) -> None:
        for run, items in self._gathered.items():
            run(items)


class _Call(CallContext):
    gone = False
    is_alone = False

    def __init__(self, read: _Read | None) -> None:
        super().__init__(may_run_here=True, may_block=False)
        self._read = read

    @override
    def comes_alone(self) -> bool:
        return self.is_alone

    @property
    @override
    def cancelled(self) -> bool:
        return self.gone

    @override
    def gather(self, run: Callable[[Sequence[Any]], None], item: object) -> bool:
        if self._read is None:
            return False
        self._read.add(run, item)
        return True


class _Job(Job):
    def __init__(self, name: str, runs: list[tuple[str, bool]], read: _Read | None, join_key: str | None = "k") -> None:
        super().__init__(_Call(read))
        self.join_key, self.most_rows = join_key, 4
        self.name, self._runs = name, runs
        self.answered = threading.Event()
        self.refused: ProtocolError | None = None

    @property
    @override
    def is_quick(self) -> bool:
        return True

    @override
    def run(self, instance: object) -> None:
        self.run_joined((), _INSTANCE)

    @override
    def run_joined(self, others: Sequence[Job], instance: object) -> None:
        jobs = [self, *(job for job in others if isinstance(job, _Job))]
        self._runs.append(("".join(job.name for job in jobs), threading.current_thread() is threading.main_thread()))
        for job in jobs:
            job.answered.set()

    @override
    def refuse(self, error: ProtocolError) -> None:
        self.refused = error
        self.answered.set()


class _Blocker(_Job):
    """Holds an instance until the test lets it go; it is not quick, so a thread of the pool runs it."""

    def __init__(self) -> None:
        super().__init__("", [], None, None)
        self.begun, self.may_end = threading.Event(), threading.Event()

    @property
    @override
    def is_quick(self) -> bool:
        return False

    @override
    def run(self, instance: object) -> None:
        self.begun.set()
        assert self.may_end.wait(120)


@contextmanager
def _pool(queue_limit: int = 8, **batching: Any) -> Iterator[InstancePool]:
    pool = InstancePool([_INSTANCE], queue_limit=queue_limit, name="pool", batching=BatchingOptions(**batching))
    yield pool
    pool.close(120)


def _submit(pool: InstancePool, names: str, read: _Read | None, runs: list[tuple[str, bool]]) -> list[_Job]:
    # An upper-case name is of another kind.
    jobs = [_Job(name, runs, read, "K" if name.isupper() else "k") for name in names]
    for job in jobs:
        pool.submit(job)
    return jobs


def test_each_kind_runs_in_the_largest_batches_when_all_is_read() -> None:
    with _pool() as pool:
        read, runs = _Read(), list[tuple[str, bool]]()
        _submit(pool, "aBcDefg", read, runs)
        assert not runs
        read.end()
        assert sorted(runs) == [("BD", True), ("acef", True), ("g", True)]
        assert pool.running == pool.waiting == 0


def test_a_preferred_size_is_a_batch_of_its_own() -> None:
    with _pool(preferred_batch_sizes=(2,)) as pool:
        read, runs = _Read(), list[tuple[str, bool]]()
        _submit(pool, "abcde", read, runs)
        read.end()
        assert [names for names, _ in runs] == ["ab", "cd", "e"]


def test_a_transport_that_does_not_gather_runs_each_at_once() -> None:
    with _pool() as pool:
        runs = list[tuple[str, bool]]()
        _submit(pool, "ab", None, runs)
        assert runs == [("a", True), ("b", True)]


def test_who_has_gone_meanwhile_is_left_out() -> None:
    with _pool() as pool:
        read, runs = _Read(), list[tuple[str, bool]]()
        jobs = _submit(pool, "abc", read, runs)
        context = jobs[1].context
        assert isinstance(context, _Call)
        context.gone = True
        read.end()
        assert runs == [("ac", True)]
        assert jobs[1].refused is not None
        assert jobs[1].refused.code is Code.CANCELLED


@pytest.mark.parametrize("limit", [8, 2])
def test_all_wait_where_no_instance_is_free_and_what_is_too_much_is_refused(limit: int) -> None:
    with _pool(queue_limit=limit) as pool:
        blocker = _Blocker()
        pool.submit(blocker)
        assert blocker.begun.wait(120)
        read, runs = _Read(), list[tuple[str, bool]]()
        jobs = _submit(pool, "abc", read, runs)
        read.end()
        assert pool.waiting == min(limit, 3)
        assert [job.refused.code for job in jobs if job.refused] == [Code.RESOURCE_EXHAUSTED] * (3 - pool.waiting)
        blocker.may_end.set()
        for job in jobs:
            assert job.answered.wait(120)
        assert runs == [("abc"[:limit], False)]


def test_what_was_gathered_is_refused_where_the_server_ends_meanwhile() -> None:
    with _pool() as pool:
        read, runs = _Read(), list[tuple[str, bool]]()
        jobs = _submit(pool, "ab", read, runs)
        pool.refuse_all(ProtocolError(Code.UNAVAILABLE, "ends"))
        read.end()
        assert not runs
        assert [job.refused.code for job in jobs if job.refused] == [Code.UNAVAILABLE] * 2


class _ShortJob(_Job):
    """Not quick: an event loop runs it only where no one else waits."""

    @property
    @override
    def is_quick(self) -> bool:
        return False

    @property
    @override
    def is_short(self) -> bool:
        return True


@pytest.mark.parametrize(("names", "alone", "here"), [("a", True, True), ("a", False, False), ("ab", True, False)])
def test_a_short_job_runs_on_the_thread_that_brought_it_if_it_came_alone(
    names: str, *, alone: bool, here: bool
) -> None:
    with _pool() as pool:
        read, runs = _Read(), list[tuple[str, bool]]()
        jobs = [_ShortJob(name, runs, read) for name in names]
        for job in jobs:
            assert isinstance(job.context, _Call)
            job.context.is_alone = alone
            pool.submit(job)
        read.end()
        for job in jobs:
            assert job.answered.wait(120)
        assert {thread for _, thread in runs} == {here}
