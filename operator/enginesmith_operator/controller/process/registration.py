"""Which operator works on which namespaces: one Lease of the cluster, with an entry for each operator.

Two operators on one namespace would undo each other's writes without end. An operator therefore enters the namespaces
that it works on before it works on them, and refuses to work where another operator has one of them.

    15 s  between two renewals of an entry
    45 s  the deadline: a leader that could not renew for so long stops writing, and its process ends
    60 s  the duration: an entry that did not change for so long belongs to an operator that has ended
    90 s  the patience: a process that has waited so long for another operator's end fails

An entry belongs to all replicas of an operator, before and after an upgrade; the one that leads renews it. No replica
removes it when it stops, so that no other operator can take the namespaces between two leaders. All durations are
measured on a monotonic clock from what was seen here, as in leader.py.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from enginesmith_contract.errors import EnginesmithError
from enginesmith_operator.cluster.errors import (
    ClusterError,
    ConflictError,
    LeaseLostError,
    MissingObjectError,
    ObjectExistsError,
)
from enginesmith_operator.cluster.transport import Json, Transport
from enginesmith_operator.kinds import LEASE, REGISTER

__all__ = ["OtherOperatorError", "Registration", "RegistrationTimes"]

_LOGGER: Final = logging.getLogger(__name__)
_ENTRIES: Final = "enginesmith.io/operators"
_NAMED: Final = 8


class OtherOperatorError(EnginesmithError):
    """Another operator works on the same namespaces."""

    default_reason = "OtherOperator"


@dataclass(frozen=True, kw_only=True)
class RegistrationTimes:
    """Seconds; see the module's docstring. `retry` is between two attempts that fail."""

    renewal: float = 15.0
    deadline: float = 45.0
    duration: float = 60.0
    patience: float = 90.0
    retry: float = 3.0


class _Entry(BaseModel):
    """One operator, as its leader entered it.

    Attributes:
        process: that leads.
        namespaces: that it works on; empty: all.
        renewed: time of that process's clock; another text at each renewal.
    """

    model_config = ConfigDict(frozen=True)

    process: str
    namespaces: tuple[str, ...]
    renewed: str


_READER: Final = TypeAdapter(dict[str, _Entry])


class Registration:
    """The entry of one operator. Used in one event loop.

    Args:
        transport: to the API server.
        namespace: of the Lease with all entries.
        operator: name of this operator's entry: namespace and name of the Lease that its replicas compete for.
        process: identity of this process.
        namespaces: that the operator works on; empty: all.
        tell: called with why the operator may not work, and with an empty text once it may.
        times: of the entry.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        namespace: str,
        operator: str,
        process: str,
        namespaces: Collection[str],
        tell: Callable[[str], None],
        times: RegistrationTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._namespace = namespace
        self._where = f"lease {namespace}/{REGISTER}"
        self._operator = operator
        self._process = process
        self._namespaces = tuple(sorted(namespaces))
        self._tell = tell
        self._times = times or RegistrationTimes()
        self._clock = clock
        self._renewed_at: float | None = None
        self._seen: dict[str, tuple[_Entry, float]] = {}
        self._problem = ""
        self.is_free = asyncio.Event()
        self.is_made = asyncio.Event()

    async def keep(self, leads: asyncio.Event) -> None:
        """Set `is_free` when no other operator has the namespaces, set `is_made` once `leads` is set, then renew.

        Raises:
            OtherOperatorError: another operator has one of the namespaces, and does not end.
            ClusterError: the entry was made, and could not be renewed in time.
        """
        await self._until_done(enter=False)
        self.is_free.set()
        await leads.wait()
        while True:
            await self._until_done(enter=True)
            self.is_made.set()
            await asyncio.sleep(self._times.renewal)
            if not self.may_write():
                raise LeaseLostError("the entry was not renewed in time", where=self._where)

    def may_write(self) -> bool:
        """Whether the entry was renewed recently."""
        return self._renewed_at is not None and self._clock() < self._renewed_at + self._times.deadline

    async def _until_done(self, *, enter: bool) -> None:
        refused_at: float | None = None
        while True:
            try:
                await self._attempt(enter=enter)
            except OtherOperatorError as error:
                self._renewed_at = None
                self._report(str(error))
                refused_at = self._clock() if refused_at is None else refused_at
                if self.is_made.is_set() or self._clock() >= refused_at + self._times.patience:
                    raise
            except ClusterError as error:
                self._report(str(error))
                if self.is_made.is_set() and not self.may_write():
                    raise
            else:
                self._report("")
                return
            await asyncio.sleep(self._times.retry)

    def _report(self, problem: str) -> None:
        if problem and problem != self._problem:
            _LOGGER.error("%s", problem)
        self._problem = problem
        self._tell("" if self.may_write() else problem)

    async def _attempt(self, *, enter: bool) -> None:
        """Make or renew the entry, or only see whether it could be made.

        Raises:
            OtherOperatorError: another operator has one of the namespaces.
            ClusterError: the API server cannot say.
        """
        while True:
            sent_at = self._clock()
            lease = await self._read()
            others = self._living(_entries_of(lease))
            self._refuse_shared(others)
            if not enter:
                return
            try:
                await self._write(lease, others)
            except (ConflictError, ObjectExistsError):
                continue
            self._renewed_at = sent_at
            return

    async def _read(self) -> Json | None:
        path = LEASE.path(self._namespace, REGISTER)
        try:
            return await self._transport.request_object("GET", path, where=self._where)
        except MissingObjectError:
            return None

    def _living(self, entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
        """Return the entries of other operators that have changed recently."""
        now, known = self._clock(), self._seen
        self._seen = {
            name: known[name] if name in known and known[name][0] == entry else (entry, now)
            for name, entry in entries.items()
            if name != self._operator
        }
        return {name: entry for name, (entry, seen_at) in self._seen.items() if now < seen_at + self._times.duration}

    def _refuse_shared(self, others: Mapping[str, _Entry]) -> None:
        mine = set(self._namespaces)
        for name, entry in others.items():
            theirs = set(entry.namespaces)
            if mine and theirs and not mine & theirs:
                continue
            shared = sorted(theirs & mine if mine else theirs)
            namespace, _, own = name.rpartition("/")
            raise OtherOperatorError(
                "another operator works on the same namespaces",
                where=self._where,
                why=f"{own} in the namespace {namespace} (process {entry.process}) works on "
                + (", ".join(shared[:_NAMED]) or "every namespace"),
                remedy=(
                    "uninstall one of the two, or give each its own namespaces (the chart's value namespaces); "
                    f"another operator may follow {self._times.duration:.0f} s after one has stopped"
                ),
            )

    async def _write(self, lease: Json | None, others: Mapping[str, _Entry]) -> None:
        entry = _Entry(process=self._process, namespaces=self._namespaces, renewed=datetime.now(UTC).isoformat())
        entries = {name: one.model_dump(mode="json") for name, one in {**others, self._operator: entry}.items()}
        metadata: Json = {"name": REGISTER, "namespace": self._namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        metadata["annotations"] = {_ENTRIES: json.dumps(entries, sort_keys=True)}
        body: Json = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": {}}
        method, name = ("POST", None) if lease is None else ("PUT", REGISTER)
        path = LEASE.path(self._namespace, name)
        await self._transport.request_object(method, path, where=self._where, body=body)


def _entries_of(lease: Json | None) -> dict[str, _Entry]:
    """Return the entries; none if a user has written something else."""
    text = ((lease or {}).get("metadata", {}).get("annotations") or {}).get(_ENTRIES, "{}")
    try:
        return _READER.validate_json(text)
    except ValidationError as error:
        _LOGGER.warning("the annotation %s cannot be read, and is replaced: %s", _ENTRIES, error)
        return {}
