"""The leading replica is killed or stands still, and how soon the other one works; for the test and the benchmark."""

import os
import signal
import time
from dataclasses import dataclass

from benchmarks.operator_cluster import OPERATOR_USER, AuditTail, Request, replicas, writes_of
from tests.cluster.engines import Tenant

__all__ = ["Takeover", "lose_leader"]


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """What came of it.

    Attributes:
        lost: pod of the replica that led.
        taken: pod of the one that leads since.
        seconds: from the signal until the first write for an InferenceEngine that was made just then.
        writes: of both replicas, but the Lease's, from the signal on.
    """

    lost: str
    taken: str
    seconds: float
    writes: list[Request]


def lose_leader(tenant: Tenant, number: signal.Signals, name: str) -> Takeover:
    """Send the leading replica a signal, apply an InferenceEngine, and wait until the other one made it Ready.

    Args:
        tenant: for the engine.
        number: SIGKILL, or SIGSTOP; a process that stands still goes on before this returns.
        name: of the engine.
    """
    leader, *_ = replicas(tenant.cluster)
    audit = AuditTail(tenant.cluster.audit_log, OPERATOR_USER)
    writes: list[Request] = []

    def is_reconciled() -> bool:
        writes.extend(writes_of(audit.read()))
        return any(one.namespace == tenant.namespace for one in writes)

    sent_at = time.time()
    os.kill(leader.pid, number)
    try:
        tenant.apply(name, [{"name": "cpu", "backend": "onnxruntime"}])
        tenant.until(is_reconciled, "another replica works")
    finally:
        if number is signal.SIGSTOP:
            # While its successor is at work: what it had in mind must not be written now.
            os.kill(leader.pid, signal.SIGCONT)
    tenant.until_ready(name)
    writes.extend(writes_of(audit.read()))
    first = min((one for one in writes if one.namespace == tenant.namespace), key=lambda one: one.received_at)
    return Takeover(lost=leader.pod, taken=first.pod, seconds=first.received_at - sent_at, writes=writes)
