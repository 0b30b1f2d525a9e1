"""The election on a real Lease: one leads, a killed leader is followed, a stopped one hands over."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from kubernetes.aio.client import Configuration

from enginesmith_operator.cluster.transport import Json, Transport
from enginesmith_operator.controller.process.leader import Elector, LeaseTimes, Sighting, may_take
from enginesmith_operator.kinds import LEASE

WithTransport = Callable[[Callable[[Transport], Awaitable[Any]]], Any]
_PROGRAM = Path(__file__).with_name("elector_process.py")
_FAILOVER_SECONDS = 20.0


def _sighting(holder: str, *, seen_at: float = 100.0, duration: float = 15.0) -> Sighting:
    return Sighting(holder=holder, version="1", duration=duration, transitions=0, seen_at=seen_at)


@pytest.mark.parametrize(
    ("seen", "now", "want"),
    [
        (_sighting(""), 100.0, True),
        (_sighting("me"), 100.0, True),
        (_sighting("other"), 114.9, False),
        (_sighting("other"), 115.0, True),
        (_sighting("other", duration=1.0), 101.0, True),
    ],
    ids=["released", "our own", "others hold it", "others let it run out", "by the holder's own duration"],
)
def test_a_lease_is_taken_when_it_is_free_or_was_not_renewed_for_its_duration(
    seen: Sighting, now: float, *, want: bool
) -> None:
    assert may_take(seen, "me", now) is want


def test_a_follower_sees_within_20_seconds_that_a_lease_was_not_renewed() -> None:
    times = LeaseTimes()
    assert times.duration + times.retry < _FAILOVER_SECONDS


@contextmanager
def _candidate(namespace: str, identity: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(_PROGRAM), namespace, identity]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert _line(process) == "started"
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = process.stdout
    assert stream is not None
    return stream.readline().strip()


def _lease(with_transport: WithTransport, namespace: str) -> Json:
    async def read(transport: Transport) -> Json:
        return await transport.request_object("GET", LEASE.path(namespace, "test"), where="lease")

    found: Json = with_transport(read)["spec"]
    return found


@pytest.mark.cluster
@pytest.mark.slow
def test_the_other_candidate_leads_after_a_kill(with_transport: WithTransport, namespace: str) -> None:
    with _candidate(namespace, "first") as first, _candidate(namespace, "second") as second:
        leader, follower = (first, second) if _lease_holder(with_transport, namespace) == "first" else (second, first)
        assert _line(leader) == "leads"
        before = _lease(with_transport, namespace)
        leader.kill()
        assert _line(follower) == "leads"
        after = _lease(with_transport, namespace)
        assert after["holderIdentity"] != before["holderIdentity"]
        assert after["leaseTransitions"] == before["leaseTransitions"] + 1


@pytest.mark.cluster
@pytest.mark.slow
def test_a_leader_that_is_told_to_stop_hands_over_before_its_lease_ends(
    with_transport: WithTransport, namespace: str
) -> None:
    with _candidate(namespace, "first") as first:
        assert _line(first) == "leads"
        first.terminate()
        assert _line(first) == "released"
        assert _lease(with_transport, namespace)["holderIdentity"] == ""
    with _candidate(namespace, "second") as second:
        assert _line(second) == "leads"


@pytest.mark.cluster
@pytest.mark.slow
def test_a_leader_that_was_frozen_past_its_lease_ends_itself_and_does_not_come_back(
    with_transport: WithTransport, namespace: str
) -> None:
    with _candidate(namespace, "frozen") as frozen:
        assert _line(frozen) == "leads"
        with _candidate(namespace, "other") as other:
            frozen.send_signal(signal.SIGSTOP)
            assert _line(other) == "leads"
            frozen.send_signal(signal.SIGCONT)
            assert _line(frozen) == "lost"
            assert frozen.wait(timeout=120) == 1
            assert _lease(with_transport, namespace)["holderIdentity"] == "other"


def _lease_holder(with_transport: WithTransport, namespace: str) -> str:
    async def read(transport: Transport) -> str:
        while True:
            found = await transport.request_object("GET", LEASE.path(namespace), where="leases")
            for lease in found["items"]:
                if lease["spec"].get("holderIdentity"):
                    return str(lease["spec"]["holderIdentity"])

    holder: str = with_transport(read)
    return holder


def test_a_leader_that_gets_no_answer_says_why_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Configuration(host=f"http://127.0.0.1:{silent.getsockname()[1]}")
        lost = threading.Event()

        async def open_transport() -> Transport:
            return Transport(connection)

        elector = Elector(
            open_transport=open_transport,
            namespace="none",
            name="test",
            identity="me",
            on_lead=lambda: None,
            on_lost=lost.set,
            times=LeaseTimes(duration=0.3, deadline=0.2, retry=0.05),
        )
        elector.start()
        assert _until(lambda: "no response within" in caplog.text)
        elector.stop()
    line = next(one for one in caplog.messages if "cannot be renewed" in one)
    assert line.startswith("the lease cannot be renewed: no response within 0.")
    assert not lost.is_set()


def _until(holds: Callable[[], bool]) -> bool:
    for _ in range(6000):
        if holds():
            return True
        time.sleep(0.02)
    return False
