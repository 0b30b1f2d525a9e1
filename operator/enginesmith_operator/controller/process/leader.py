"""Leader election: a Lease that its holder renews, and a clock that ends its permission to write before others begin.

        15 s  the Lease's duration: a follower that saw no change of it for so long takes it
        10 s  the deadline: a leader that could not renew for so long stops writing and ends its process
         2 s  between two attempts

All durations are measured on a monotonic clock from what was *seen* here, never from the times in the Lease: clocks of
nodes differ. A renewal counts from the moment its request was sent. The elector runs in a thread with an event loop of
its own, because the first listing of a large cluster keeps the main loop busy for seconds. A leader that lost its lease
ends the whole process (`on_lost`), since a request that is on its way cannot be called back any other way.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from enginesmith_operator.cluster.errors import ClusterError, ConflictError, MissingObjectError, ObjectExistsError
from enginesmith_operator.cluster.transport import Json, Transport
from enginesmith_operator.kinds import LEASE

__all__ = ["Elector", "LeaseTimes", "Sighting", "may_take"]

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """Seconds: how long a Lease holds, when its holder gives up, how often it is renewed."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A state of the Lease, and when it was first seen here.

    Attributes:
        holder: empty: released.
        duration: seconds, as its holder wrote it.
        seen_at: monotonic.
    """

    holder: str
    version: str
    duration: float
    transitions: int
    seen_at: float


def may_take(seen: Sighting, identity: str, now: float) -> bool:
    """Whether `identity` may write itself into a Lease that was seen like this."""
    if seen.holder in {"", identity}:
        return True
    return now >= seen.seen_at + seen.duration


class Elector:
    """One candidate.

    Args:
        open_transport: gives a transport for the elector's own event loop.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this process; unique.
        on_lead: called once, in the elector's thread, when this process begins to lead.
        on_lost: called once, in the elector's thread, when it must write no more; should not return.
        times: of the Lease.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        open_transport: Callable[[], Awaitable[Transport]],
        namespace: str,
        name: str,
        identity: str,
        on_lead: Callable[[], None],
        on_lost: Callable[[], None],
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_transport = open_transport
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._on_lead = on_lead
        self._on_lost = on_lost
        self._times = times or LeaseTimes()
        self._clock = clock
        self._renewed_at: float | None = None
        self._why = ""
        self._seen: Sighting | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Start the election."""
        self._thread.start()

    def stop(self) -> None:
        """Release the Lease, if it is held, and end the thread. Writes are refused at once."""
        self._stop.set()
        self._thread.join(timeout=self._times.deadline)

    def is_leading(self) -> bool:
        """Whether this process may write now; safe from every thread."""
        renewed_at = self._renewed_at
        if renewed_at is None or self._stop.is_set():
            return False
        return self._clock() < renewed_at + self._times.deadline

    def _run(self) -> None:
        try:
            asyncio.run(self._compete())
        except Exception:
            # Without its thread a leader could not tell when to stop, so it stops now.
            _LOGGER.exception("the election failed")
            self._on_lost()

    async def _compete(self) -> None:
        async with await self._open_transport() as transport:
            while not self._stop.is_set():
                await self._attempt(transport)
                await asyncio.to_thread(self._stop.wait, self._pause())
            if self._renewed_at is not None:
                await self._release(transport)

    def _pause(self) -> float:
        """Return the seconds until the next attempt; a leader never sleeps past its deadline."""
        if self._renewed_at is None:
            return self._times.retry
        return max(min(self._times.retry, self._renewed_at + self._times.deadline - self._clock()), 0.01)

    async def _attempt(self, transport: Transport) -> None:
        was_leading = self._renewed_at is not None
        sent_at = self._clock()
        self._why = ""
        try:
            # A request that hangs must end before the permission to write does.
            async with asyncio.timeout(self._patience()):
                held = await self._take_or_renew(transport)
        except (ClusterError, TimeoutError) as error:
            words = str(error) or f"no response within {self._clock() - sent_at:.1f} s"
            self._why = words
            _LOGGER.warning("the lease cannot be renewed: %s", words)
            held = False
        if held:
            self._renewed_at = sent_at
            if not was_leading:
                _LOGGER.info("this replica leads")
                self._on_lead()
        elif was_leading and not self.is_leading() and not self._stop.is_set():
            _LOGGER.error("the lease is lost, and this process ends: %s", self._why)
            self._renewed_at = None
            self._on_lost()

    def _patience(self) -> float:
        if self._renewed_at is None:
            return self._times.deadline
        return max(self._renewed_at + self._times.deadline - self._clock(), 0.01)

    async def _take_or_renew(self, transport: Transport) -> bool:
        where = f"lease {self._namespace}/{self._name}"
        path = LEASE.path(self._namespace, self._name)
        try:
            lease = await transport.request_object("GET", path, where=where)
        except MissingObjectError:
            return await self._write(transport, "POST", LEASE.path(self._namespace), self._document(None))
        seen = self._look(lease)
        if self._renewed_at is not None and seen.holder != self.identity:
            # Another replica took it, so there is no deadline to wait for.
            self._renewed_at = self._clock() - self._times.deadline
            self._why = f"{seen.holder or 'no replica'} holds it, and not {self.identity}"
            return False
        if not may_take(seen, self.identity, self._clock()):
            return False
        return await self._write(transport, "PUT", path, self._document(lease))

    def _look(self, lease: Json) -> Sighting:
        spec = lease.get("spec") or {}
        found = Sighting(
            holder=str(spec.get("holderIdentity") or ""),
            version=str(lease["metadata"]["resourceVersion"]),
            duration=float(spec.get("leaseDurationSeconds") or self._times.duration),
            transitions=int(spec.get("leaseTransitions") or 0),
            seen_at=self._clock(),
        )
        known = self._seen
        if known is not None and known.version == found.version:
            found = replace(found, seen_at=known.seen_at)
        self._seen = found
        return found

    async def _write(self, transport: Transport, method: str, path: str, document: Json) -> bool:
        where = f"lease {self._namespace}/{self._name}"
        try:
            self._look(await transport.request_object(method, path, where=where, body=document))
        except (ConflictError, ObjectExistsError):
            self._why = "another process wrote it at the same time"
            return False
        return True

    def _document(self, lease: Json | None) -> Json:
        """Return the Lease with this process as its holder."""
        now = _micro_time()
        spec = dict((lease or {}).get("spec") or {})
        is_holder = spec.get("holderIdentity") == self.identity
        seen = self._seen
        spec |= {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(int(self._times.duration), 1),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime", now) if is_holder else now,
            "leaseTransitions": (seen.transitions if seen else 0) + (0 if is_holder or lease is None else 1),
        }
        return self._lease(lease, spec)

    async def _release(self, transport: Transport) -> None:
        path = LEASE.path(self._namespace, self._name)
        self._renewed_at = None
        try:
            lease = await transport.request_object("GET", path, where="release of the lease")
            spec = dict(lease.get("spec") or {})
            if spec.get("holderIdentity") == self.identity:
                spec |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
                await self._write(transport, "PUT", path, self._lease(lease, spec))
        except ClusterError as error:
            # Other replicas then wait until it expires, as after a crash.
            _LOGGER.warning("the lease was not released: %s", error)

    def _lease(self, lease: Json | None, spec: Json) -> Json:
        metadata: Json = {"name": self._name, "namespace": self._namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}


def _micro_time() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
