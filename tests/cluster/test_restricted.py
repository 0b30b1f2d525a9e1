"""The operator may do what docs/installation.md says, and nothing else: as the API server sees its account."""

import pytest
from tests.cluster.access import Cluster
from tests.cluster.installation import SYSTEM

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator")]

ACCOUNT = f"system:serviceaccount:{SYSTEM}:enginesmith-operator"
NOBODY = "system:serviceaccount:{}:default"
SEEN = {"get", "list", "watch"}
MADE = SEEN | {"create", "patch", "delete"}
WANT_EVERYWHERE = {
    "inferenceengines.enginesmith.io": SEEN,
    "enginebuilds.enginesmith.io": MADE,
    "inferenceengines.enginesmith.io/status": {"update"},
    "enginebuilds.enginesmith.io/status": {"update"},
    "inferenceengines.enginesmith.io/finalizers": {"update"},
    "enginebuilds.enginesmith.io/finalizers": {"update"},
    "jobs.batch": MADE,
    "deployments.apps": MADE,
    "services": MADE,
    "poddisruptionbudgets.policy": MADE,
    "horizontalpodautoscalers.autoscaling": MADE,
    "enginepolicies.enginesmith.io": SEEN,
    "namespaces": SEEN,
    "nodes": SEEN,
    "pods": SEEN,
    "persistentvolumeclaims": SEEN,
    "pods/log": {"get"},
    "events": {"create", "list"},
    "resourceslices.resource.k8s.io": {"list"},
    "configmaps [enginesmith-toolchains]": SEEN,
}
WANT_AT_HOME = {
    "leases.coordination.k8s.io [enginesmith-operator]": {"get", "update"},
    "leases.coordination.k8s.io": {"create"},
}


def rights(cluster: Cluster, account: str, namespace: str) -> dict[str, set[str]]:
    """What an account may do in a namespace: verbs by resource, with the names that it is limited to."""
    listed = cluster.kubectl("auth", "can-i", "--list", "--no-headers", "-n", namespace, f"--as={account}")
    found: dict[str, set[str]] = {}
    for line in listed.splitlines():
        before, _, verbs = line.rpartition("[")
        resource, *limits = before.replace("[]", "").split()
        if not resource.startswith("[/"):
            found.setdefault(" ".join([resource, *limits]), set()).update(verbs.rstrip("] ").split())
    return found


@pytest.mark.parametrize("at_home", [False, True])
def test_the_operator_s_account_has_the_rights_that_it_needs_and_no_other(
    cluster: Cluster,
    namespace: str,
    at_home: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    place = SYSTEM if at_home else namespace
    anybody = rights(cluster, NOBODY.format(namespace), place)
    found = {what: verbs for what, verbs in rights(cluster, ACCOUNT, place).items() if what not in anybody}
    assert found == WANT_EVERYWHERE | (WANT_AT_HOME if at_home else {})


@pytest.mark.parametrize("words", [["get", "secrets"], ["create", "pods"], ["create", "pods/exec"], ["patch", "nodes"]])
def test_the_operator_s_account_may_not(cluster: Cluster, namespace: str, words: list[str]) -> None:
    asked = cluster.run("kubectl", "auth", "can-i", *words, "-n", namespace, f"--as={ACCOUNT}")
    assert (asked.returncode, asked.stdout.strip()) == (1, "no"), asked.stderr
