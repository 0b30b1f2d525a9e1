"""The operator asks for what its role allows, and the role allows no more: read from the API server's audit log."""

from collections.abc import Iterator

import pytest
from benchmarks.operator_cluster import OPERATOR_USER, AuditTail, Request
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import SYSTEM

from enginesmith_operator.kinds import ENGINE_BUILD, EVENT, JOB, KINDS, WATCHED, Writes

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("sole_operator")]

NAME = "rights"
PLAIN = {"name": "cpu", "backend": "onnxruntime"}
SCALED = PLAIN | {"autoscaling": {"minReplicas": 1, "maxReplicas": 2, "cpuUtilization": 80}}
PAIR = {"name": "pair", "backend": "onnxruntime", "replicas": 2}
NEVER_SCHEDULED = {"resources": {"requests": {"cpu": "1k"}}}

STEPS = ("Prepared", "Built")

APPLIED_KINDS = [one for one in KINDS if one.writes is Writes.APPLIED]

Right = tuple[str, str]

RARE: dict[Right, str] = {
    **{("get", one.plural): "an object that a listing has not, or whose name is taken" for one in WATCHED},
    **{
        ("update", f"{one.plural}/finalizers"): "asked by the API server of who blocks an owner's deletion"
        for one in KINDS
    },
    **{("create", one.plural): "asked by the API server where an apply creates an object" for one in APPLIED_KINDS},
    ("list", EVENT.plural): "a pod or a Job that waits without a known cause",
    ("patch", JOB.plural): "an object without an owner is adopted",
    ("patch", ENGINE_BUILD.plural): "an object without an owner is adopted",
    ("delete", ENGINE_BUILD.plural): "an EngineBuild that the retention lets go",
}
"""What the scenario of this test does not ask for, and when the operator does."""


def granted() -> Iterator[Right]:
    for row in KINDS:
        for grant in row.rights():
            name = f"{row.plural}/{grant.subresource}" if grant.subresource else row.plural
            yield from ((verb, name) for verb in grant.verbs)


def test_every_right_is_used_and_every_request_is_allowed(cluster: Cluster, small_tenant: Tenant) -> None:
    tenant, audit, requests = small_tenant, AuditTail(cluster.audit_log, OPERATOR_USER), list[Request]()
    cluster.kubectl("-n", SYSTEM, "delete", "lease", "enginesmith-operator")
    cluster.kubectl("-n", SYSTEM, "rollout", "restart", "deployment/enginesmith-operator")
    cluster.kubectl("-n", SYSTEM, "rollout", "status", "deployment/enginesmith-operator", "--timeout=300s")

    tenant.apply(NAME, [PLAIN], build=NEVER_SCHEDULED)
    tenant.until(lambda: "Unschedulable" in {tenant.condition(NAME, one).get("reason") for one in STEPS}, "a Job waits")
    tenant.apply(NAME, [SCALED, PAIR])
    tenant.until_ready(NAME)
    tenant.apply(NAME, [PLAIN])
    tenant.until_ready(NAME)
    tenant.until(lambda: len(tenant.get("deployments")["items"]) == 1, "the other target is gone")

    def used() -> set[Right]:
        requests.extend(audit.read())
        mine = [one for one in requests if one.user == OPERATOR_USER]
        return {(one.verb, "/".join(filter(None, (one.resource, one.subresource)))) for one in mine}

    tenant.until(lambda: set(granted()) - used() <= set(RARE), "every right is used")
    assert used() - set(granted()) == set()
    assert [one.text for one in requests if one.user == OPERATOR_USER and one.code == 403] == []
