"""Targets that change under steady requests, failures that pass, and other writers, on a real cluster."""

from functools import partial
from pathlib import Path

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import service_address
from tests.cluster.traffic import Traffic, steady_traffic

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "cls"
CPU: Document = {"name": "cpu", "backend": "onnxruntime"}
TWO: Document = CPU | {"replicas": 2}
L4: Document = {"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}
LITTLE: Document = {"podTemplate": {"resources": {"limits": {"memory": "48Mi"}, "requests": {"memory": "48Mi"}}}}
ENOUGH: Document = {"podTemplate": {"resources": {"limits": {"memory": "1Gi"}}}}
SCALED: Document = CPU | {"autoscaling": {"minReplicas": 2, "maxReplicas": 4, "cpuUtilization": 80}}


def deployments(tenant: Tenant) -> dict[str, Document]:
    """Return the Deployments that are not on their way out, by target."""
    found = tenant.get("deployments", "--show-managed-fields")["items"]
    alive = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    return {one["metadata"]["labels"]["enginesmith.io/target"]: one for one in alive}


def answer_on(tenant: Tenant, traffic: Traffic, requests: int) -> None:
    """Wait for so many more answers."""
    seen = len(traffic.answers())
    tenant.until(lambda: len(traffic.answers()) >= seen + requests, "the client is answered")


def change_targets(tenant: Tenant, traffic: Traffic, *targets: Document) -> None:
    """Change the targets, and wait until they serve and nothing else is left."""
    tenant.apply(NAME, list(targets))
    names = {one["name"] for one in targets}
    tenant.until(lambda: deployments(tenant).keys() == names, f"only {sorted(names)} is left")
    tenant.until_ready(NAME)
    answer_on(tenant, traffic, 300)


def test_targets_that_are_renamed_swapped_and_split_lose_no_request(tenant: Tenant, tmp_path: Path) -> None:
    tenant.apply(NAME, [TWO])
    tenant.until_ready(NAME)
    with steady_traffic(service_address(tenant, NAME), NAME, tmp_path / "answers") as traffic:
        answer_on(tenant, traffic, 100)
        change_targets(tenant, traffic, TWO | {"name": "main"})
        # One target becomes two.
        change_targets(tenant, traffic, CPU | {"name": "first"}, CPU | {"name": "second", "replicas": 2})
        # They swap their names.
        change_targets(tenant, traffic, CPU | {"name": "second"}, CPU | {"name": "first", "replicas": 2})
        # Another order, and one name for both.
        change_targets(tenant, traffic, CPU | {"name": "first", "replicas": 2}, CPU | {"name": "second"})
        change_targets(tenant, traffic, TWO)
    assert traffic.lost() == []
    assert "TargetLeaves" in {event["reason"] for event in tenant.events()}


@pytest.mark.usefixtures("hardware")
def test_targets_that_swap_hardware_lose_no_request(tenant: Tenant, tmp_path: Path) -> None:
    tenant.apply(NAME, [CPU | {"name": "a"}, L4 | {"name": "b"}])
    tenant.until_ready(NAME)
    with steady_traffic(service_address(tenant, NAME), NAME, tmp_path / "answers") as traffic:
        answer_on(tenant, traffic, 100)
        change_targets(tenant, traffic, L4 | {"name": "a"}, CPU | {"name": "b"})
        served = {one["name"]: one["engines"][0].get("product") for one in tenant_targets(tenant)}
    assert traffic.lost() == []
    assert served == {"a": "NVIDIA-L4", "b": None}


def tenant_targets(tenant: Tenant) -> list[Document]:
    """Return what the status says of all targets."""
    return list(tenant.get("inferenceengine", NAME)["status"]["targets"])


def test_a_server_that_is_killed_for_memory_serves_once_the_limit_is_raised(tenant: Tenant) -> None:
    tenant.apply(NAME, [CPU], **LITTLE)
    tenant.until(lambda: tenant.target(NAME, "cpu").get("phase") == "Failed", "it is killed again and again")
    failed = tenant.target(NAME, "cpu")
    assert (failed["reason"], failed.get("rejected")) == ("OutOfMemory", None)
    assert "podTemplate.resources.limits.memory" in failed["message"]

    tenant.apply(NAME, [CPU], **ENOUGH)

    tenant.until_ready(NAME)


def test_a_store_account_that_is_wrong_at_first_serves_once_it_is_right(tenant: Tenant, cluster: Cluster) -> None:
    store = {"s3": {"bucket": "engines", "endpoint": cluster.s3["AWS_ENDPOINT_URL"], "secretRef": {"name": "store"}}}
    account = {name: cluster.s3[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    tell_account(tenant, account)
    tenant.apply(NAME, [CPU | {"replicas": 0}], store=store)
    tenant.until(lambda: tenant.condition(NAME, "Built").get("status") == "True", "the engine is stored")
    tell_account(tenant, account | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    tenant.apply(NAME, [CPU], store=store)
    tenant.until(lambda: tenant.target(NAME, "cpu").get("phase") == "Failed", "the init step fails again and again")
    failed = tenant.target(NAME, "cpu")
    assert failed.get("rejected") is None
    assert deployments(tenant)["cpu"]["spec"]["replicas"] == 1

    tell_account(tenant, account)

    tenant.until_ready(NAME)


def tell_account(tenant: Tenant, account: Document) -> None:
    """Write the Secret of the store."""
    metadata = {"name": "store", "namespace": tenant.namespace}
    tenant.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": account})


def test_others_who_change_a_deployment_are_named_with_the_field_that_is_for_it(
    small_tenant: Tenant, images: dict[str, str]
) -> None:
    tenant, other = small_tenant, images["enginesmith/runtime-tensorrt-rtx"]
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    name = deployments(tenant)["cpu"]["metadata"]["name"]

    tenant.kubectl("scale", "deployment", name, "--replicas=3")
    tenant.until(lambda: "spec.targets[cpu].replicas" in conflict(tenant), "the number is said")
    assert "kubectl set spec.replicas" in conflict(tenant)
    tenant.until(lambda: deployments(tenant)["cpu"]["spec"]["replicas"] == 1, "the number is put back")
    tenant.kubectl("set", "image", f"deployment/{name}", f"server={other}")
    tenant.until(lambda: "spec.toolchain" in conflict(tenant), "the image is said")
    assert "containers[server].image" in conflict(tenant)

    tenant.until_ready(NAME)
    assert len([one for one in tenant.events() if one["reason"] == "ChangedByOthers"]) == 2


def conflict(tenant: Tenant) -> str:
    """Return what is said of others who write."""
    return str(tenant.condition(NAME, "Conflict").get("message", ""))


def test_between_replicas_and_an_autoscaler_there_are_never_fewer(small_tenant: Tenant) -> None:
    tenant = small_tenant
    tenant.apply(NAME, [SCALED])
    tenant.until_ready(NAME)
    seen = [deployments(tenant)["cpu"]["spec"]["replicas"]]
    tenant.apply(NAME, [CPU | {"replicas": 3}])
    tenant.until(lambda: note(tenant, seen) == 3, "there are three")
    tenant.until_ready(NAME)
    tenant.apply(NAME, [SCALED])
    tenant.until(lambda: note(tenant, seen) and tenant.get("hpa")["items"], "there is an autoscaler")
    for least in (3, 4):
        tenant.apply(NAME, [SCALED | {"autoscaling": SCALED["autoscaling"] | {"minReplicas": least}}])
        tenant.until(partial(_has_reached, tenant, seen, least), "there are as many as asked for")
    tenant.until_ready(NAME)
    note(tenant, seen)
    assert seen == sorted(seen)
    assert seen[0] == 2


def _has_reached(tenant: Tenant, seen: list[int], least: int) -> bool:
    return note(tenant, seen) >= least


def note(tenant: Tenant, seen: list[int]) -> int:
    """Note the number that the Deployment asks for, and return it."""
    seen.append(int(deployments(tenant)["cpu"]["spec"]["replicas"]))
    return seen[-1]
