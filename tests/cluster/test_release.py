"""The chart on a real cluster: `helm test`, refusals, and an operator of some namespaces."""

import json
from collections.abc import Iterator

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant, new_namespace, s3_secret
from tests.cluster.installation import CHART, SYSTEM, chart_values, installed_operator, run_helm

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CPU = {"name": "cpu", "backend": "onnxruntime"}
OF_TEST = "enginesmith.io/engine=enginesmith-test"


@pytest.fixture
def store_account(cluster: Cluster) -> Iterator[None]:
    """The Secret of the default store in the release's namespace, where `helm test` needs it."""
    cluster.apply(s3_secret(cluster, SYSTEM))
    yield
    cluster.kubectl("-n", SYSTEM, "delete", "secret", "s3", "--ignore-not-found")


@pytest.mark.extended
@pytest.mark.usefixtures("operator", "store_account")
def test_helm_test_builds_and_asks_an_engine_and_leaves_nothing_in_the_cluster(cluster: Cluster) -> None:
    done = run_helm(cluster, "test", "enginesmith", "--namespace", SYSTEM, "--timeout", "5m", "--logs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers as it should" in done.stdout
    made = "inferenceengines,enginebuilds,jobs,deployments,services,pods,configmaps"
    cluster.kubectl("-n", SYSTEM, "wait", "pods", f"--selector={OF_TEST}", "--for=delete", "--timeout=300s")
    left = cluster.kubectl("-n", SYSTEM, "get", made, "-o=name").split()
    assert [name for name in left if "enginesmith-test" in name] == []


@pytest.mark.usefixtures("operator")
def test_a_second_release_is_refused_with_the_name_of_the_first(cluster: Cluster, namespace: str) -> None:
    values = json.dumps(chart_values(cluster))
    words = ("install", "other", CHART, "--namespace", namespace, "--skip-crds", "--values", "-")
    done = run_helm(cluster, *words, stdin=values)
    assert done.returncode != 0
    assert f"the release enginesmith in the namespace {SYSTEM} is installed in this cluster" in done.stderr
    assert f"helm upgrade enginesmith -n {SYSTEM}" in done.stderr
    assert cluster.kubectl("-n", namespace, "get", "deployments,serviceaccounts", "-o=name").split() in (
        [],
        ["serviceaccount/default"],
    )


@pytest.mark.usefixtures("operator")
def test_wrong_values_are_refused_by_their_schema_before_anything_is_applied(cluster: Cluster) -> None:
    def deployed() -> str:
        return cluster.kubectl("-n", SYSTEM, "get", "deployment", "enginesmith-operator", "-o=jsonpath={.metadata.uid}")

    before, values = deployed(), json.dumps(chart_values(cluster) | {"replica": 3})
    done = run_helm(cluster, "upgrade", "enginesmith", CHART, "--namespace", SYSTEM, "--values", "-", stdin=values)
    assert done.returncode != 0
    assert "additional properties 'replica' not allowed" in done.stderr
    assert deployed() == before


@pytest.mark.extended
def test_an_operator_of_one_namespace_serves_there_and_touches_no_other(
    cluster: Cluster, images: dict[str, str], small_tenant: Tenant
) -> None:
    tenant = small_tenant
    operator = f"system:serviceaccount:{SYSTEM}:enginesmith-operator"
    with (
        installed_operator(cluster, images, settings={"namespaces": [tenant.namespace]}),
        new_namespace(cluster) as other,
    ):
        elsewhere = tenant.document("elsewhere", [CPU])
        elsewhere["metadata"]["namespace"] = other
        cluster.apply(elsewhere)
        tenant.apply("here", [CPU])
        tenant.until_ready("here")
        assert "status" not in cluster.get("-n", other, "inferenceengine", "elsewhere")
        for namespace, want in ((tenant.namespace, "yes"), (other, "no")):
            asked = cluster.run("kubectl", "auth", "can-i", "create", "jobs", "-n", namespace, "--as", operator)
            assert asked.stdout.strip() == want
