"""A restart of the operator with existing engines: time until it is idle, its writes, and its load afterwards.

Usage: python -m benchmarks.operator_restart [--idle-seconds 60]

Measures with whatever the cluster holds; `python -m benchmarks.operator_fleet` makes a thousand engines first.
The operator is idle from the end of the last pass or the last write on, if no other follows within 10 s.
"""

import argparse
import time
from pathlib import Path

from benchmarks.measure import resident_bytes, write_record
from benchmarks.operator_cluster import OPERATOR_USER, AuditTail, Replica, cpu_seconds, replicas, writes_of
from tests.cluster.access import Cluster
from tests.cluster.installation import SYSTEM, installed_operator, load_images, open_cluster, scale_operator

__all__ = ["measure_restart"]

_QUIET_SECONDS = 10.0
_POLL_SECONDS = 0.5
_IDLE_SECONDS = 60.0
_LISTING_SECONDS = 180.0
_CALM_SECONDS = 5.0
_CALM_SHARE = 0.1


def measure_restart(cluster: Cluster, *, idle_seconds: float = _IDLE_SECONDS) -> dict[str, object]:
    """Stop both replicas, start them, wait for quiet, watch them idle; return the figures."""
    scale_operator(cluster, 0)
    audit = AuditTail(cluster.audit_log, OPERATOR_USER)
    begin = time.time()
    cluster.kubectl("-n", SYSTEM, "scale", "deployment/enginesmith-operator", "--replicas=2")
    leader = replicas(cluster)[0]
    quiet_at, writes = _until_quiet(leader, audit)
    _until_two(cluster)
    found = replicas(cluster)
    settled = _until_settled(found)
    before, idle_from = [cpu_seconds(one.pid) for one in found], time.monotonic()
    time.sleep(idle_seconds)
    elapsed = time.monotonic() - idle_from
    shares = [(cpu_seconds(one.pid) - spent) / elapsed for one, spent in zip(found, before, strict=True)]
    writes += len(writes_of(audit.read()))
    return {
        "seconds from scaling up to quiet": round(quiet_at - begin, 1),
        "seconds from the process's start to quiet": round(quiet_at - _started_at(leader.pid), 1),
        "seconds from quiet until the watches' own listings are read": round(settled - quiet_at, 1),
        "writes but the Lease's": writes,
        "passes": int(_passes(leader)),
        "memory in MB": [
            {
                "peak": round(one.peak_bytes / 1e6),
                "resident": round(one.resident_bytes / 1e6),
                "proportional": round(resident_bytes(one.pid) / 1e6),
            }
            for one in found
        ],
        "idle share of a core in percent": [round(100 * share, 2) for share in shares],
    }


def _until_quiet(leader: Replica, audit: AuditTail) -> tuple[float, int]:
    """Return when it became quiet, in seconds since the epoch, and how many writes there were."""
    passes, last, writes = -1.0, time.time(), 0
    while time.time() - last < _QUIET_SECONDS:
        seen = _passes(leader)
        if seen != passes:
            passes, last = seen, time.time()
        for one in writes_of(audit.read()):
            writes, last = writes + 1, max(last, one.answered_at)
        time.sleep(_POLL_SECONDS)
    return last, writes


def _until_settled(found: list[Replica]) -> float:
    """Wait until no replica is busy with the watches' own listings; return since when, in seconds since the epoch."""
    give_up = time.time() + _LISTING_SECONDS
    while time.time() < give_up:
        before, since = sum(cpu_seconds(one.pid) for one in found), time.time()
        time.sleep(_CALM_SECONDS)
        if sum(cpu_seconds(one.pid) for one in found) - before < _CALM_SHARE * _CALM_SECONDS:
            return since
    return time.time()


def _passes(leader: Replica) -> float:
    return sum(value for name, value in leader.metrics().items() if name.startswith("enginesmith_reconciles_total"))


def _until_two(cluster: Cluster) -> None:
    cluster.kubectl("-n", SYSTEM, "rollout", "status", "deployment/enginesmith-operator", "--timeout=120s")


def _started_at(pid: int) -> float:
    """Return when a process began, in seconds since the epoch."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - uptime + ticks / 100


def main() -> None:
    """Measure, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle-seconds", type=float, default=_IDLE_SECONDS)
    options = parser.parse_args()
    cluster = open_cluster()
    images = load_images(cluster)
    with installed_operator(cluster, images, alone=True):
        write_record("operator_restart", measure_restart(cluster, idle_seconds=options.idle_seconds))


if __name__ == "__main__":
    main()
