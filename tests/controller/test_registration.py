"""Operators enter their namespaces in one Lease of a real API server: who may work, who waits, and who gives up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from enginesmith_operator.cluster.errors import LeaseLostError
from enginesmith_operator.cluster.transport import Transport
from enginesmith_operator.controller.process.registration import OtherOperatorError, Registration, RegistrationTimes

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WithTransport = Callable[[Callable[[Transport], Awaitable[Any]]], Any]

QUICK = RegistrationTimes(renewal=0.1, deadline=45.0, duration=60.0, patience=0.3, retry=0.1)
PATIENT = replace(QUICK, patience=60.0)
SECONDS = 300


@dataclass
class Operator:
    """One operator of a test, and what its replica was told."""

    registration: Registration
    told: list[str] = field(default_factory=list)
    has_problem: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Cluster:
    """What operators enter themselves in."""

    transport: Transport
    namespace: str

    def operator(self, name: str, *namespaces: str, times: RegistrationTimes = QUICK, process: str = "") -> Operator:
        """Return an operator; without namespaces it works on all."""
        told: list[str] = []
        has_problem = asyncio.Event()

        def tell(problem: str) -> None:
            told.append(problem)
            if problem:
                has_problem.set()

        made = Registration(
            self.transport,
            namespace=self.namespace,
            operator=f"{name}/enginesmith-operator",
            process=process or f"{name}_1",
            namespaces=namespaces,
            tell=tell,
            times=times,
        )
        return Operator(made, told, has_problem)


@contextmanager
def leading(one: Operator) -> Iterator["asyncio.Task[None]"]:
    """Have a replica of an operator that leads as soon as it may."""
    leads = asyncio.Event()
    leads.set()
    task = asyncio.create_task(one.registration.keep(leads))
    try:
        yield task
    finally:
        task.cancel()


async def until_made(one: Operator) -> None:
    async with asyncio.timeout(SECONDS):
        await one.registration.is_made.wait()


def test_an_operator_of_all_namespaces_is_named_to_another_which_gives_up(
    with_transport: WithTransport, namespace: str
) -> None:
    async def scenario(transport: Transport) -> None:
        cluster = Cluster(transport, namespace)
        first, second = cluster.operator("a"), cluster.operator("b", "vision")
        with leading(first):
            await until_made(first)
            with leading(second) as task, pytest.raises(OtherOperatorError) as refusal:
                await asyncio.wait_for(task, SECONDS)
        assert first.registration.may_write()
        assert not second.registration.is_free.is_set()
        assert not second.registration.may_write()
        assert set(second.told) == {str(refusal.value)}
        assert str(refusal.value).startswith(
            f"lease {namespace}/enginesmith-operators: another operator works on the same namespaces: "
            "enginesmith-operator in the namespace a (process a_1) works on every namespace. Uninstall one of the two"
        )
        assert refusal.value.reason == "OtherOperator"

    with_transport(scenario)


def test_lists_of_namespaces_are_held_against_each_other(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> None:
        cluster = Cluster(transport, namespace)
        first, second = cluster.operator("a", "vision", "speech"), cluster.operator("b", "text")
        third = cluster.operator("c", "speech", "text", "vision")
        with leading(first), leading(second):
            await until_made(first)
            await until_made(second)
            with leading(third) as task, pytest.raises(OtherOperatorError, match=r"in the namespace [ab] .* works on"):
                await asyncio.wait_for(task, SECONDS)
            assert first.registration.may_write()
            assert second.registration.may_write()
        assert "works on speech, vision." in third.told[0] or "works on text." in third.told[0]

    with_transport(scenario)


def test_of_two_that_begin_in_one_moment_one_works(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> None:
        cluster = Cluster(transport, namespace)
        both = [cluster.operator("a"), cluster.operator("b")]
        with leading(both[0]) as one, leading(both[1]) as other:
            ended, running = await asyncio.wait({one, other}, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
            assert [type(task.exception()) for task in ended] == [OtherOperatorError]
            assert len(running) == 1
            assert sorted(one.registration.may_write() for one in both) == [False, True]

    with_transport(scenario)


def test_another_operator_follows_when_an_entry_was_not_renewed_for_its_duration(
    with_transport: WithTransport, namespace: str
) -> None:
    async def scenario(transport: Transport) -> None:
        cluster = Cluster(transport, namespace)
        first = cluster.operator("a")
        second = cluster.operator("b", times=replace(PATIENT, duration=0.5))
        with leading(first):
            await until_made(first)
        with leading(second):
            await until_made(second)
        assert "in the namespace a (process a_1)" in second.told[0]
        assert second.told[-1] == ""

    with_transport(scenario)


def test_a_new_leader_of_the_same_operator_is_not_refused(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> None:
        cluster = Cluster(transport, namespace)
        before = cluster.operator("a")
        after = cluster.operator("a", "vision", process="a_2")
        with leading(before):
            await until_made(before)
            with leading(after):
                await until_made(after)
        assert set(after.told) == {""}

    with_transport(scenario)


def test_an_operator_that_did_not_renew_its_entry_in_time_does_not_write_and_ends(
    with_transport: WithTransport, namespace: str
) -> None:
    later = [0.0]

    async def scenario(transport: Transport) -> None:
        one = Registration(
            transport,
            namespace=namespace,
            operator="a/enginesmith-operator",
            process="a_1",
            namespaces=(),
            tell=lambda _: None,
            times=QUICK,
            clock=lambda: time.monotonic() + later[0],
        )
        with leading(Operator(one)) as task:
            await until_made(Operator(one))
            assert one.may_write()
            later[0] = QUICK.deadline
            assert not one.may_write()
            with pytest.raises(LeaseLostError, match="the entry was not renewed in time"):
                await asyncio.wait_for(task, SECONDS)

    with_transport(scenario)


def test_a_namespace_that_is_not_there_is_told_and_waited_for(with_transport: WithTransport, namespace: str) -> None:
    async def scenario(transport: Transport) -> None:
        one = Cluster(transport, f"{namespace}-missing").operator("a")
        with leading(one) as task:
            await asyncio.wait_for(one.has_problem.wait(), SECONDS)
            assert not task.done()
        assert f"lease {namespace}-missing/enginesmith-operators" in next(filter(None, one.told))
        assert not one.registration.is_made.is_set()

    with_transport(scenario)
