"""Which waiting jobs run together, in which order, and how long a free instance waits for more."""

import threading
import time
from collections.abc import Hashable
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override

from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.serve_request import BatchingOptions
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.server.batching import Batcher
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.instance_pool import InstancePool
from enginesmith_runtime.server.job import Job
from enginesmith_runtime.server.profile_choice import ProfileTable
from enginesmith_runtime.server.transport.interface import CallContext
from enginesmith_runtime.server.waiting_queue import WaitingQueue

_NO_INSTANCE: Any = SimpleNamespace(close=lambda: None)
_LONG = 3600.0


class _Caller(CallContext):
    """A call of one connection."""

    def __init__(self, connection: Hashable = None, *, here: bool = False) -> None:
        super().__init__(may_run_here=here)
        self._connection = connection

    @property
    @override
    def source(self) -> Hashable:
        return self._connection


class _Job(Job):
    def __init__(self, name: str, *, key: Hashable = "k", rows: int = 1, most: int = 8, priority: int = 0) -> None:
        super().__init__(_Caller(name[0]))
        self.name, self.join_key, self.rows, self.most_rows, self.priority = name, key, rows, most, priority
        self.refused: ProtocolError | None = None
        self.pays: bool | None = True

    @property
    @override
    def joining_pays(self) -> bool | None:
        return self.pays

    @override
    def run(self, instance: object) -> None:
        raise NotImplementedError

    @override
    def refuse(self, error: ProtocolError) -> None:
        self.refused = error


def _queue(*jobs: Job) -> WaitingQueue:
    queue = WaitingQueue()
    for job in jobs:
        queue.add(job)
    return queue


def _names(jobs: Any) -> str:
    return " ".join(str(job.name) for job in jobs)


def test_connections_take_turns_and_each_keeps_its_order() -> None:
    queue = _queue(*(_Job(name) for name in ("a1", "a2", "a3", "a4", "b1", "c1", "b2")))
    assert _names(queue) == "a1 b1 c1 a2 b2 a3 a4"
    first, second, _, fourth, gone, *_ = queue
    queue.take([first, second, fourth])
    # A connection that comes later is not put before what has waited for its turn.
    queue.add(_Job("d1"))
    assert _names(queue) == "c1 b2 d1 a3 a4"
    assert queue.remove(gone)
    assert not queue.remove(gone)
    assert _names(queue) == "c1 d1 a3 a4"


def test_a_priority_goes_before_every_turn() -> None:
    jobs = [_Job("a1", priority=2), _Job("b1", priority=2), _Job("a2", priority=1), _Job("a3", priority=1)]
    assert _names(_queue(*jobs)) == "a2 a3 a1 b1"


@pytest.mark.parametrize(
    ("jobs", "preferred", "want"),
    [
        ((_Job("a1"), _Job("b1"), _Job("c1")), (), "a1 b1 c1"),
        ((_Job("a1"), _Job("b1", key="other"), _Job("c1")), (), "a1 c1"),
        ((_Job("a1", key=None), _Job("b1")), (), "a1"),
        ((_Job("a1", rows=5), _Job("b1", rows=3), _Job("c1")), (), "a1 b1"),
        # What does not fit ends the batch, so that requests of one kind keep their order.
        ((_Job("a1", rows=5), _Job("b1", rows=4), _Job("c1")), (), "a1"),
        # A request that is larger than a batch may be runs alone.
        ((_Job("a1", rows=9), _Job("b1")), (), "a1"),
        ((_Job("a1"), _Job("b1"), _Job("c1"), _Job("d1"), _Job("e1")), (2, 4), "a1 b1 c1 d1"),
        ((_Job("a1"), _Job("b1"), _Job("c1")), (2, 4), "a1 b1"),
        ((_Job("a1", rows=3),), (2, 4), "a1"),
    ],
)
def test_a_batch_is_the_first_job_and_what_fits_it(
    jobs: tuple[_Job, ...], preferred: tuple[int, ...], want: str
) -> None:
    batch = Batcher(BatchingOptions(preferred_batch_sizes=preferred)).choose(_queue(*jobs))
    assert (_names(batch.jobs), batch.wait_until_ns) == (want, 0)


@pytest.mark.parametrize(
    ("pays", "idle", "want"),
    [(True, 2, 5), (False, 1, 5), (False, 2, 3), (False, 3, 2), (False, 8, 1), (None, 4, 5), (None, 5, 1)],
)
def test_free_instances_share_what_waits_where_joining_does_not_pay(idle: int, want: int, *, pays: bool | None) -> None:
    jobs = [_Job(f"{number}") for number in range(5)]
    jobs[0].pays = pays
    batch = Batcher(BatchingOptions(max_queue_delay_seconds=_LONG)).choose(_queue(*jobs), idle)
    assert (len(batch.jobs), batch.wait_until_ns) == (want, 0)


def _after(options: BatchingOptions, *, ended: int = 0, arrived: int = 0, running: int = 0, key: str = "k") -> Batcher:
    """Return a batcher that saw one run of `ended` rows end, `arrived` rows come since, and `running` rows begin."""
    batcher = Batcher(options)
    if ended:
        batcher.begin([_Job("x", rows=ended, key=key)])
        batcher.end([_Job("x", rows=ended, key=key)])
    if running:
        batcher.begin([_Job("x", rows=running)])
    for _ in range(arrived):
        batcher.arrive(_Job("x"))
    return batcher


@pytest.mark.parametrize(
    ("seen", "preferred", "waiting", "waits"),
    [
        ({}, (), 1, False),  # idle
        ({"ended": 1, "arrived": 1}, (), 1, False),  # one client, again and again
        ({"ended": 4, "arrived": 1}, (), 1, True),  # three more are likely
        ({"ended": 4, "arrived": 4}, (), 4, False),  # all are back
        ({"ended": 20, "arrived": 8}, (), 8, False),  # the batch is full
        ({"running": 4, "arrived": 1}, (), 1, True),  # on another instance
        ({"running": 4, "arrived": 1}, (4,), 1, True),
        ({"running": 1, "arrived": 1}, (4,), 1, False),  # four cannot be reached
        ({}, (4,), 1, False),
        ({"ended": 4, "key": "another kind"}, (), 1, False),
        ({"ended": 4, "arrived": 1}, (4,), 1, True),
    ],
)
def test_a_free_instance_waits_only_where_others_are_likely(
    seen: dict[str, Any], preferred: tuple[int, ...], waiting: int, *, waits: bool
) -> None:
    options = BatchingOptions(max_queue_delay_seconds=_LONG, preferred_batch_sizes=preferred)
    batch = _after(options, **seen).choose(_queue(*(_Job(f"{number}") for number in range(waiting))))
    assert (batch.wait_until_ns > 0) is waits
    assert len(batch.jobs) == waiting


def test_the_delay_begins_when_an_instance_is_free_and_others_do_not_extend_it() -> None:
    batcher = _after(BatchingOptions(max_queue_delay_seconds=_LONG), ended=4)
    long_ago = _Job("a1")
    long_ago.queued_ns = 0
    until = batcher.choose(_queue(long_ago)).wait_until_ns
    assert until > time.perf_counter_ns()
    batcher.end([_Job("x", rows=2)])
    assert batcher.choose(_queue(long_ago, _Job("b1"))).wait_until_ns == until


def test_nothing_is_held_where_batching_is_off() -> None:
    switched_off = BatchingOptions(enabled=False, max_queue_delay_seconds=_LONG)
    assert _after(switched_off, ended=4).choose(_queue(_Job("c1"))).wait_until_ns == 0


class _Recorded(_Job):
    """A job that notes with whom it ran."""

    def __init__(self, name: str, runs: list[str], *, here: bool = False) -> None:
        super().__init__(name)
        self.context = _Caller(name, here=here)
        self.runs = runs

    @override
    def run(self, instance: object) -> None:
        self.runs.append(self.name)

    @override
    def run_joined(self, others: Any, instance: object) -> None:
        self.runs.append(_names((self, *others)))


def _wait_for(condition: Any) -> None:
    for _ in range(24_000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it never came to that")


class _Blocker(_Recorded):
    """A job that runs until the test lets it end."""

    def __init__(self, runs: list[str]) -> None:
        super().__init__("blocker", runs)
        self.join_key = None
        self.begun, self.may_end = threading.Event(), threading.Event()

    @override
    def run(self, instance: object) -> None:
        self.begun.set()
        assert self.may_end.wait(120)


@pytest.mark.parametrize("here", [False, True], ids=["on-the-pool's-thread", "on-the-caller's"])
def test_a_batch_that_is_not_completed_runs_when_the_delay_has_passed(*, here: bool) -> None:
    options = BatchingOptions(max_queue_delay_seconds=0.05)
    pool = InstancePool([_NO_INSTANCE], queue_limit=8, name="pool", batching=options)
    runs: list[str] = []
    blocker = _Blocker(runs)
    pool.submit(blocker)
    assert blocker.begun.wait(120)
    for name in ("a", "b", "c"):
        pool.submit(_Recorded(name, runs))
    blocker.may_end.set()
    _wait_for(lambda: pool.waiting == pool.running == 0)
    # Two of the three never come back.
    pool.submit(_Recorded("d", runs, here=here))
    _wait_for(lambda: pool.waiting == pool.running == 0)
    pool.close(120)
    assert runs == ["a b c", "d"]


def test_the_last_one_that_was_waited_for_runs_the_batch() -> None:
    options = BatchingOptions(max_queue_delay_seconds=_LONG)
    pool = InstancePool([_NO_INSTANCE], queue_limit=8, name="pool", batching=options)
    runs: list[str] = []
    blocker = _Blocker(runs)
    pool.submit(blocker)
    assert blocker.begun.wait(120)
    for name in ("a", "b", "c"):
        pool.submit(_Recorded(name, runs))
    blocker.may_end.set()
    _wait_for(lambda: pool.waiting == pool.running == 0)
    for name in ("d", "e", "f"):
        assert runs == ["a b c"]
        pool.submit(_Recorded(name, runs, here=True))
    pool.close(120)
    assert runs == ["a b c", "d e f"]


def _table(*ranges: tuple[int, int, int]) -> ProfileTable:
    spec = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, -1), symbols=("n", None))
    profiles = [
        Profile(
            name=f"{low}-{high}",
            inputs={"x": ShapeRange(min=(low, width), opt=(low, width), max=(high, width))},
        )
        for low, high, width in ranges
    ]
    return ProfileTable([spec], profiles)


@pytest.mark.parametrize(
    ("ranges", "shape", "want"),
    [
        (((1, 8, 4),), (1, 4), 8),
        (((1, 8, 4),), (8, 4), 8),
        (((1, 4, 4), (4, 32, 4)), (1, 4), 32),
        (((1, 4, 4), (5, 32, 4)), (2, 4), 32),
        # Between the profiles is a size that neither takes.
        (((1, 4, 4), (8, 32, 4)), (1, 4), 4),
        (((1, 4, 4), (1, 32, 5)), (1, 4), 4),
    ],
)
def test_a_batch_is_as_large_as_the_profiles_take(
    ranges: tuple[tuple[int, int, int], ...], shape: tuple[int, ...], want: int
) -> None:
    assert _table(*ranges).most_rows({"x": shape}) == want


@pytest.mark.parametrize("largest", [9, 1 << 62])
def test_a_size_that_no_profile_takes_is_blamed_on_its_own_input(largest: int) -> None:
    specs = [TensorSpec(name=name, dtype=DType.FP32, shape=(-1, 4), symbols=("n", None)) for name in ("a", "b")]
    table = ProfileTable(specs, [Profile(inputs=dict.fromkeys("ab", ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))))])
    for wrong, right in (("a", "b"), ("b", "a")):
        with pytest.raises(ProtocolError, match=rf"input '{wrong}': shape \[{largest}, 4\] lies outside the profile"):
            table.choose({wrong: (largest, 4), right: (2, 4)})
    with pytest.raises(ProtocolError, match="the request has 3 and 2"):
        table.choose({"a": (2, 4), "b": (3, 4)})
