"""What the operator's benchmarks share: its processes and metrics, and what the API server's audit log says of it."""

import json
import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from tests.cluster.access import Cluster
from tests.cluster.installation import SYSTEM

__all__ = [
    "OPERATOR_USER",
    "AuditTail",
    "Replica",
    "Request",
    "cpu_seconds",
    "machinery",
    "replicas",
    "spent_since",
    "writes_of",
]

OPERATOR_USER = f"system:serviceaccount:{SYSTEM}:enginesmith-operator"

_OPERATOR_PODS = "app.kubernetes.io/component=operator"
_MODULE = b"enginesmith_operator.controller"
_HEALTH_PORT = 8080
_POD_NAME = "authentication.kubernetes.io/pod-name"
_TICKS = os.sysconf("SC_CLK_TCK")
_MACHINERY = frozenset(
    {"etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kube-proxy", "kubelet", "containerd", "kwok"}
)
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answered request, as the audit log has it.

    Attributes:
        pod: whose account was used; empty where it was no pod's.
        received_at: seconds since the epoch.
        answered_at: of the same clock.
    """

    user: str
    pod: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    received_at: float
    answered_at: float

    @property
    def text(self) -> str:
        """What was done to what kind of thing."""
        return f"{self.verb} {self.resource}{'/' + self.subresource if self.subresource else ''}"


class AuditTail:
    """The audit log from now on, across its rotation.

    Args:
        log: of the API server.
        mark: what a line must contain to be read as JSON; the log is long.
    """

    def __init__(self, log: Path, mark: str) -> None:
        self._log = log
        self._mark = mark
        self._file: TextIO = log.open()
        self._file.seek(0, os.SEEK_END)
        self._rest = ""

    def read(self) -> list[Request]:
        """Return what was answered since the last call."""
        return [one for line in self._lines() if self._mark in line and (one := _request(json.loads(line)))]

    def _lines(self) -> Iterator[str]:
        while True:
            was_replaced = os.fstat(self._file.fileno()).st_ino != self._log.stat().st_ino
            text = self._rest + self._file.read()
            *whole, self._rest = text.split("\n")
            yield from whole
            if not was_replaced:
                return
            self._file.close()
            self._file = self._log.open()


def _request(line: Mapping[str, Any]) -> Request | None:
    what = line.get("objectRef")
    if line.get("stage") != "ResponseComplete" or not what:
        return None
    return Request(
        user=line["user"]["username"],
        pod=next(iter((line["user"].get("extra") or {}).get(_POD_NAME, ())), ""),
        verb=line["verb"],
        resource=what["resource"],
        subresource=what.get("subresource", ""),
        namespace=what.get("namespace", ""),
        name=what.get("name", ""),
        code=(line.get("responseStatus") or {}).get("code", 0),
        received_at=datetime.fromisoformat(line["requestReceivedTimestamp"]).timestamp(),
        answered_at=datetime.fromisoformat(line["stageTimestamp"]).timestamp(),
    )


def writes_of(requests: Iterable[Request]) -> list[Request]:
    """Return the operator's writes among requests, the Lease's left out."""
    return [one for one in requests if one.user == OPERATOR_USER and one.verb in _WRITES and one.resource != "leases"]


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One process of the installed operator.

    Attributes:
        pid: on this machine.
        address: of its pod.
    """

    pod: str
    pid: int
    address: str

    def metrics(self) -> dict[str, float]:
        """Return all samples by their names with labels, as Prometheus writes them."""
        with urllib.request.urlopen(f"http://{self.address}:{_HEALTH_PORT}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    @property
    def leads(self) -> bool:
        """Whether it does the work."""
        return self.metrics()["enginesmith_leader"] == 1

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever held at a time."""
        return _status_bytes(self.pid, "VmHWM")

    @property
    def resident_bytes(self) -> int:
        """The memory that it holds now."""
        return _status_bytes(self.pid, "VmRSS")


def replicas(cluster: Cluster, *, seconds: float = 60.0) -> list[Replica]:
    """Return the operator's processes, the leader first, once there are as many as wanted and one leads."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = [one for pod in cluster.get("-n", SYSTEM, "pods", f"--selector={_OPERATOR_PODS}")["items"]
                 if (one := _replica(pod)) is not None]  # fmt: skip
        try:
            found.sort(key=lambda one: not one.leads)
            if found and found[0].leads:
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError("no replica of the operator leads")


def _replica(pod: Mapping[str, Any]) -> Replica | None:
    metadata, address = pod["metadata"], pod["status"].get("podIP")
    if "deletionTimestamp" in metadata or not address:
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, groups = (folder / "cmdline").read_bytes(), (folder / "cgroup").read_text()
        except OSError:
            continue
        if _MODULE in command and metadata["uid"] in groups:
            return Replica(pod=metadata["name"], pid=int(folder.name), address=address)
    return None


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machinery() -> dict[tuple[str, int], float]:
    """Return the processor time of the cluster's own programs by name and pid, in seconds."""
    found: dict[tuple[str, int], float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, pid = (folder / "comm").read_text().strip(), int(folder.name)
            if name in _MACHINERY:
                found[name, pid] = cpu_seconds(pid)
        except OSError:
            continue
    return found


def spent_since(before: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """Return what those that were there have used since by their names; the programs of all nodes together."""
    used: defaultdict[str, float] = defaultdict(float)
    for (name, pid), seconds in machinery().items():
        if (name, pid) in before:
            used[name] += seconds - before[name, pid]
    return used
