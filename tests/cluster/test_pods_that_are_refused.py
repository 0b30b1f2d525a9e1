"""Pods that a namespace does not let in: told with the API server's sentence, and made once they are let in."""

from collections.abc import Iterator

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "refused"
CPU = {"name": "cpu", "backend": "onnxruntime"}
L4 = {"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}
SMALL = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.fixture
def tenant(small_tenant: Tenant) -> Tenant:
    """A namespace for engines of a small model."""
    return small_tenant


def told(tenant: Tenant, kind: str) -> str:
    """Return the message of a condition that is False because pods are refused, once it is."""
    tenant.until(lambda: tenant.condition(NAME, kind).get("reason") == "PodsRefused", f"{kind}: PodsRefused")
    assert tenant.condition(NAME, kind)["status"] == "False"
    return str(tenant.condition(NAME, kind)["message"])


def quota(tenant: Tenant, hard: dict[str, str]) -> Document:
    """Return a ResourceQuota of the tenant's namespace."""
    metadata = {"name": "q", "namespace": tenant.namespace}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


def test_a_runtime_class_that_is_missing_is_named_and_may_be_left_out_instead(tenant: Tenant) -> None:
    tenant.apply(NAME, [CPU], podTemplate={"runtimeClassName": "none-such"})

    assert 'RuntimeClass "none-such" not found; create it' in told(tenant, "Ready")
    assert tenant.target(NAME, "cpu")["reason"] == "PodsRefused"
    tenant.apply(NAME, [CPU])

    tenant.until_ready(NAME)


@pytest.mark.parametrize("where", ["podTemplate", "build"])
def test_a_priority_class_that_is_missing_is_named(tenant: Tenant, where: str) -> None:
    tenant.apply(NAME, [CPU], **{where: {"priorityClassName": "none-such"}})

    assert "no PriorityClass with name none-such was found; create it" in told(tenant, "Ready")
    if where == "build":
        assert "none-such" in told(tenant, "Built")
    tenant.apply(NAME, [CPU])

    tenant.until_ready(NAME)


def test_a_limit_range_is_told_and_met_by_the_spec(cluster: Cluster, tenant: Tenant) -> None:
    limit = {
        "type": "Container",
        "default": {"memory": "64Mi"},
        "defaultRequest": {"memory": "64Mi"},
        "max": {"memory": "1Gi"},
    }
    metadata = {"name": "small", "namespace": tenant.namespace}
    cluster.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": [limit]}})
    tenant.apply(NAME, [CPU])

    message = told(tenant, "Prepared")
    assert "memory limit of 64Mi" in message
    assert "spec.build.resources" in message
    tenant.apply(NAME, [CPU], podTemplate={"resources": SMALL}, build={"resources": SMALL})

    tenant.until_ready(NAME)


def test_a_quota_that_demands_limits_is_met_by_the_spec(cluster: Cluster, tenant: Tenant) -> None:
    cluster.apply(quota(tenant, {"limits.cpu": "8", "limits.memory": "8Gi", "requests.cpu": "4"}))
    tenant.until(lambda: tenant.get("resourcequota", "q")["status"].get("hard"), "the quota holds")
    tenant.apply(NAME, [CPU])

    assert "must specify limits.cpu" in told(tenant, "Prepared")
    tenant.apply(NAME, [CPU], podTemplate={"resources": SMALL}, build={"resources": SMALL})

    tenant.until_ready(NAME)


def test_a_quota_of_gpus_is_told_for_builds_and_for_replicas(cluster: Cluster, tenant: Tenant, hardware: None) -> None:
    assert hardware is None
    cluster.apply(quota(tenant, {"requests.nvidia.com/gpu": "0"}))
    tenant.until(lambda: tenant.get("resourcequota", "q")["status"].get("hard"), "the quota holds")
    tenant.apply(NAME, [L4 | {"replicas": 2}])

    assert "exceeded quota: q, requested: requests.nvidia.com/gpu=1" in told(tenant, "Built")
    cluster.apply(quota(tenant, {"requests.nvidia.com/gpu": "1"}))
    tenant.until(lambda: tenant.condition(NAME, "Serving").get("status") == "True", "one replica serves")
    assert "exceeded quota: q" in told(tenant, "UpToDate")
    assert tenant.condition(NAME, "Ready")["status"] == "True"
    assert tenant.target(NAME, "l4")["readyReplicas"] == 1
    cluster.apply(quota(tenant, {"requests.nvidia.com/gpu": "2"}))

    tenant.until_ready(NAME)


@pytest.fixture
def team_policy(cluster: Cluster, tenant: Tenant) -> Iterator[str]:
    """A policy that lets no pod into the tenant's namespace."""
    name = f"no-pods-{tenant.namespace}"
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "validations": [{"expression": "false", "message": "pods need the label team"}],
    }
    binding = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": only_here},
    }
    kinds: dict[str, Document] = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    cluster.apply(*(_cluster_wide(api, kind, name, spec) for kind, spec in kinds.items()))
    yield name
    for kind in kinds:
        cluster.kubectl("delete", kind, name, "--ignore-not-found")


def _cluster_wide(api: str, kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


def test_a_policy_that_denies_pods_is_told_in_its_words(cluster: Cluster, tenant: Tenant, team_policy: str) -> None:
    tenant.apply(NAME, [CPU])

    message = told(tenant, "Prepared")
    assert "pods need the label team" in message
    assert team_policy in message
    cluster.kubectl("delete", "ValidatingAdmissionPolicyBinding", team_policy)

    tenant.until_ready(NAME)


@pytest.fixture
def mesh(cluster: Cluster, tenant: Tenant, images: dict[str, str]) -> Iterator[None]:
    """A policy that adds to every pod of the tenant's namespace a container that never ends."""
    name = f"mesh-{tenant.namespace}"
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    container = (
        f'Object.spec.containers{{name: "proxy", image: "{images["enginesmith/runtime"]}", '
        'command: ["/opt/enginesmith/bin/python", "-c", "import time; time.sleep(100000)"]}'
    )
    patch = f'[JSONPatch{{op: "add", path: "/spec/containers/-", value: {container}}}]'
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    only_here = {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}
    binding = {"policyName": name, "matchResources": {"namespaceSelector": only_here}}
    kinds: dict[str, Document] = {"MutatingAdmissionPolicy": policy, "MutatingAdmissionPolicyBinding": binding}
    cluster.apply(*(_cluster_wide(api, kind, name, spec) for kind, spec in kinds.items()))
    yield
    for kind in kinds:
        cluster.kubectl("delete", kind, name, "--ignore-not-found")


def test_a_sidecar_keeps_neither_a_preparation_nor_a_build_and_its_gpu(
    tenant: Tenant, mesh: None, hardware: None
) -> None:
    assert mesh is hardware is None
    tenant.apply(NAME, [L4])

    tenant.until(lambda: tenant.condition(NAME, "Built").get("status") == "True", "the engine is built")
    tenant.until(lambda: tenant.get("jobs")["items"] == [], "the Jobs are gone")
    tenant.until_ready(NAME)

    # The sidecar hears no signal, so that kubelet kills it after half a minute.
    tenant.until(lambda: len(tenant.get("pods")["items"]) == 1, "the pods of the Jobs are gone")
    (pod,) = tenant.get("pods")["items"]
    assert {one["name"] for one in pod["spec"]["containers"]} == {"server", "proxy"}


def test_a_key_of_the_model_s_secret_loads_no_code(cluster: Cluster, tenant: Tenant) -> None:
    account = {key: cluster.s3[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    metadata = {"name": "reader", "namespace": tenant.namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    cluster.apply(secret | {"stringData": account | {"PYTHONPATH": "/models", "LD_PRELOAD": "/models/none.so"}})
    tenant.apply(NAME, [CPU], model=tenant.model | {"secretRef": {"name": "reader"}})

    tenant.until_ready(NAME)

    log = tenant.kubectl("logs", "--selector=app.kubernetes.io/component=preparation", "--tail=-1")
    assert "the key LD_PRELOAD of the model source's Secret is ignored" in log
    assert "the key PYTHONPATH of the model source's Secret is ignored" in log
