"""The keyed queue: no key twice, none lost, none in work twice at a time."""

import asyncio

from enginesmith_operator.controller.watch.queue import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    KeyedQueue,
    WorkQueue,
)


def _no_jitter() -> float:
    return 0.5


def _queue() -> KeyedQueue[str]:
    return KeyedQueue(jitter=_no_jitter)


def _drain(queue: KeyedQueue[str], now: float) -> list[str]:
    found = []
    while (taken := queue.pop(now)) is not None:
        found.append(taken[0])
    return found


def test_a_key_that_was_added_three_times_is_worked_on_once() -> None:
    queue = _queue()
    for _ in range(3):
        queue.add("a", 0.0)
    queue.add("b", 0.0)
    assert _drain(queue, 1.0) == ["a", "b"]


def test_a_key_in_work_is_never_given_out_again_before_it_is_done() -> None:
    queue = _queue()
    queue.add("a", 0.0)
    assert queue.pop(0.0) == ("a", 0.0)
    queue.add("a", 1.0)
    queue.add("a", 2.0)
    assert queue.pop(3.0) is None
    queue.done("a", 4.0)
    assert queue.pop(5.0) == ("a", 1.0)
    queue.done("a", 6.0)
    assert queue.pop(7.0) is None


def test_an_urgent_key_goes_before_a_thousand_unhurried_ones() -> None:
    queue = _queue()
    for number in range(1000):
        queue.add(f"n{number}", 0.0, hurry=False)
    queue.add("n999", 0.0)
    queue.add("n999", 0.0)
    order = _drain(queue, 0.0)
    assert order[0] == "n999"
    assert sorted(order) == sorted(f"n{number}" for number in range(1000))


def test_a_late_key_comes_when_it_is_due_and_of_two_times_the_earlier_one_holds() -> None:
    queue = _queue()
    queue.add_later("a", 10.0)
    queue.add_later("a", 5.0)
    queue.add_later("a", 20.0)
    assert queue.next_due() == 5.0
    assert queue.pop(4.9) is None
    assert queue.pop(5.0) == ("a", 0.0)
    queue.done("a", 5.0)
    assert queue.pop(100.0) is None
    assert queue.next_due() is None


def test_a_pass_that_begins_forgets_the_later_time_that_was_set_before() -> None:
    queue = _queue()
    queue.add_later("a", 5.0)
    queue.add("a", 1.0)
    assert queue.pop(1.0) == ("a", 0.0)
    queue.done("a", 2.0)
    assert queue.pop(100.0) is None


def test_delays_double_with_each_failure_up_to_a_limit_and_start_over_after_a_success() -> None:
    queue = _queue()
    delays = [queue.fail("a", 0.0) for _ in range(14)]
    assert delays[:4] == [FIRST_RETRY_SECONDS * factor for factor in (1, 2, 4, 8)]
    assert delays[-1] == LONGEST_RETRY_SECONDS
    queue.succeed("a")
    assert queue.fail("a", 0.0) == FIRST_RETRY_SECONDS


def test_a_server_that_says_when_to_come_back_is_obeyed() -> None:
    assert _queue().fail("a", 0.0, at_least_seconds=30.0) == 30.0


def test_jitter_spreads_what_failed_together() -> None:
    early, late = KeyedQueue[str](jitter=lambda: 0.0), KeyedQueue[str](jitter=lambda: 1.0)
    assert early.fail("a", 0.0) < FIRST_RETRY_SECONDS < late.fail("a", 0.0)


def test_workers_share_the_keys_and_keep_each_to_one_at_a_time() -> None:
    async def scenario() -> tuple[list[str], int, int]:
        queue: WorkQueue[str] = WorkQueue(clock=asyncio.get_running_loop().time)
        handled: list[str] = []
        running: set[str] = set()
        overlaps = most = 0
        finished = asyncio.Event()

        async def handle(key: str, _: float) -> None:
            nonlocal overlaps, most
            overlaps += key in running
            running.add(key)
            most = max(most, len(running))
            if key == "a" and handled.count("a") < 2:
                queue.add("a")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            running.discard(key)
            handled.append(key)
            if len(handled) == 7:
                finished.set()

        for key in "abcde":
            queue.add(key)
        work = asyncio.create_task(queue.work(handle, workers=3))
        async with asyncio.timeout(30):
            await finished.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return handled, overlaps, most

    handled, overlaps, most = asyncio.run(scenario())
    assert sorted(handled) == ["a", "a", "a", "b", "c", "d", "e"]
    assert overlaps == 0
    assert 1 < most <= 3


def test_a_key_that_becomes_due_wakes_a_sleeping_worker() -> None:
    async def scenario() -> str:
        queue: WorkQueue[str] = WorkQueue(clock=asyncio.get_running_loop().time)
        taking = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add_after("a", 0.01)
        async with asyncio.timeout(30):
            return (await taking)[0]

    assert asyncio.run(scenario()) == "a"
