"""EnginePolicies on a real API server: what admission refuses, and what continues to serve."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import ROOT, scale_operator

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CASES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests/planning/data/policies.yaml").read_text(encoding="utf-8"))
_PATIENCE_SECONDS = 300.0
CPU = {"name": "cpu", "backend": "onnxruntime"}

_BINDING = "binding 'enginesmith-engine-policies"
"""Other rules of the chart refuse some of the documents as well; see test_admission.py."""


def policy(name: str, namespace: str, **spec: object) -> Document:
    """Return a policy for one namespace."""
    selector = {"namespaceSelector": {"names": [namespace]}}
    head = {"apiVersion": "enginesmith.io/v1alpha1", "kind": "EnginePolicy", "metadata": {"name": name}}
    return head | {"spec": selector | spec}


def engine(namespace: str, **spec: object) -> Document:
    """Return an InferenceEngine."""
    plain = {"model": {"uri": "s3://models/a.onnx"}, "targets": [CPU]}
    metadata = {"name": "ocr", "namespace": namespace}
    return {
        "apiVersion": "enginesmith.io/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": metadata,
        "spec": plain | spec,
    }


def refusal(cluster: Cluster, *documents: Document) -> str:
    """Return what the API server says of documents that it would be asked to apply; empty: nothing."""
    applied = ("kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-")
    return cluster.run(*applied, stdin=yaml.safe_dump_all(documents)).stderr


@pytest.fixture
def places(cluster: Cluster, namespace: str) -> Iterator[list[str]]:
    """A namespace for each case, and one more, each with a policy of its own."""
    names = [f"{namespace}-{number}" for number in range(len(CASES) + 1)]
    rules = [case["policy"] for case in CASES] + [{"precisions": []}]
    cluster.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names))
    cluster.apply(*(policy(name, name, **rule) for name, rule in zip(names, rules, strict=True)))
    yield names
    cluster.kubectl("delete", "enginepolicies", "--wait=false", *names)
    cluster.kubectl("delete", "namespaces", "--wait=false", *names)


def until_refused(cluster: Cluster, *names: str, document: Document) -> str:
    """Return what the API server says once all of these policies refuse a document: it learns of them later."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while not all(f"EnginePolicy {name}: " in (said := refusal(cluster, document)) for name in names):
        assert time.monotonic() < give_up, f"{names} do not hold: {said}"
        time.sleep(0.2)
    return said


@pytest.mark.usefixtures("operator")
def test_the_api_server_refuses_what_the_planner_refuses_in_the_same_words(cluster: Cluster, places: list[str]) -> None:
    documents = [engine(place, **case["spec"]) for place, case in zip(places, CASES, strict=False)]
    want = {place: "; ".join(case["want"]) for place, case in zip(places, CASES, strict=False) if case["want"]}
    until_refused(cluster, places[-1], document=engine(places[-1]))
    give_up = time.monotonic() + _PATIENCE_SECONDS
    # The API server learns of the policies one after the other.
    while (found := refusals_by_policy(refusal(cluster, *documents))) != want and time.monotonic() < give_up:
        time.sleep(1)
    assert found == want


def refusals_by_policy(said: str) -> dict[str, str]:
    """Return what each EnginePolicy refuses, by its name; each refused document has one error."""
    errors = [line for line in said.splitlines() if line.startswith("Error from server") and _BINDING in line]
    told = [match for line in errors if (match := re.search(r"EnginePolicy (\S+): (.*)$", line))]
    found = {match[1]: match[2] for match in told}
    assert len(errors) == len(found), said
    return found


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("product", "want"),
    [
        ("NVIDIA-A100-SXM-80GB", "NVIDIA-A100-SXM-80GB (did you mean NVIDIA-A100-SXM4-80GB?)"),
        ("NVIDIA-T4", "NVIDIA-T4 (did you mean Tesla-T4?)"),
        ("H2000*", "no GPU that is known matches H2000*"),
        ("A100*", ""),
        ("NVIDIA-L4", ""),
    ],
)
def test_a_product_that_is_not_known_is_a_warning_with_the_nearest_one(
    cluster: Cluster, namespace: str, product: str, want: str
) -> None:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    # The rule may have been installed just now.
    while not refusal(cluster, policy(namespace, namespace, gpuProducts=["none"])):
        assert time.monotonic() < give_up
        time.sleep(0.2)

    said = refusal(cluster, policy(namespace, namespace, gpuProducts=[product]))

    assert want in said
    assert "Error" not in said
    assert bool(said) is bool(want)


@pytest.mark.extended
@pytest.mark.usefixtures("sole_operator")
def test_a_policy_holds_while_the_operator_is_down_and_what_serves_stays_when_one_changes(
    cluster: Cluster, small_tenant: Tenant
) -> None:
    tenant, names = small_tenant, [f"{small_tenant.namespace}-{rule}" for rule in ("gpus", "digests")]
    l4 = tenant.document("l4", [{"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}])
    tenant.apply("cpu", [CPU])
    tenant.until_ready("cpu")
    pods = [one["metadata"]["uid"] for one in tenant.get("pods", "--selector=enginesmith.io/target")["items"]]
    assert refusal(cluster, l4) == ""
    try:
        scale_operator(cluster, 0)
        cluster.apply(policy(names[0], tenant.namespace, gpuProducts=["NVIDIA-A100*"]))
        cluster.apply(policy(names[1], tenant.namespace, digestRequired=True))
        said = until_refused(cluster, *names, document=l4)
        assert "spec.targets[0].gpu.product: NVIDIA-L4 is not allowed (allowed: NVIDIA-A100*)" in said
        assert "spec.model.sha256: a digest is required" in said
        assert refusal(cluster, tenant.document("cpu", [CPU | {"replicas": 2}])) != ""
        tenant.kubectl("label", "inferenceengine", "cpu", "still=editable")
        scale_operator(cluster, 2)

        tenant.until(lambda: tenant.condition("cpu", "PolicyViolated"), "the condition says what the policy forbids")
        violated = tenant.condition("cpu", "PolicyViolated")
        assert (violated["status"], violated["reason"]) == ("True", "PolicyDigest")
        assert f"EnginePolicy {names[1]}: spec.model.sha256: a digest is required" in violated["message"]
        assert "serving pods continue" in violated["message"]
        assert tenant.condition("cpu", "Ready")["status"] == "True"
        serving = tenant.get("pods", "--selector=enginesmith.io/target")["items"]
        assert [one["metadata"]["uid"] for one in serving] == pods
    finally:
        cluster.kubectl("delete", "enginepolicies", "--ignore-not-found", *names)
        scale_operator(cluster, 2)
    tenant.until(lambda: not tenant.condition("cpu", "PolicyViolated"), "the condition goes with the policies")


@pytest.mark.extended
@pytest.mark.usefixtures("operator", "hardware")
def test_a_gpu_of_a_namespace_is_given_away_once_and_what_waits_says_who_has_it(
    cluster: Cluster, small_tenant: Tenant
) -> None:
    tenant, name = small_tenant, f"{small_tenant.namespace}-gpus"
    l4 = {"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}
    first = yaml.safe_dump(tenant.document("first", [l4]))
    rules = {"verification": {"largestLimit": 0.5}, "defaults": {"verification": {"limit": 0.5}}}
    cluster.apply(policy(name, tenant.namespace, limits={"gpus": 1}, **rules))
    try:
        said = until_refused(cluster, name, document=tenant.document("two", [l4 | {"replicas": 2}]))
        assert "spec.targets: 2 GPUs are more than 1" in said

        tenant.kubectl("apply", "-f", "-", stdin=first)
        tenant.until_ready("first")
        status = tenant.get("inferenceengine", "first")["status"]
        assert status["inherited"] == [{"field": "spec.verification.limit", "value": "0.5", "policy": name}]
        assert "unchanged" in tenant.kubectl("apply", "-f", "-", stdin=first)

        tenant.apply("second", [l4])
        tenant.until(lambda: tenant.target("second", "l4").get("reason") == "PolicyGpus", "the second engine waits")
        told = tenant.target("second", "l4")["message"]
        assert told == (
            f"EnginePolicy {name} allows 1 GPU in namespace {tenant.namespace} (in use: InferenceEngine first 1)"
        )
        pods = tenant.get("pods", "--selector=enginesmith.io/target")["items"]
        assert {one["metadata"]["labels"]["enginesmith.io/engine"] for one in pods} == {"first"}

        tenant.kubectl("delete", "inferenceengine", "first")
        tenant.until_ready("second")
    finally:
        cluster.kubectl("delete", "enginepolicies", "--ignore-not-found", name)
