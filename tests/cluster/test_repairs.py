"""Somebody's hands in the objects of the operator, on a real cluster: ours are put right, others are left alone."""

import json
from functools import partial

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.operator_calls import OperatorCalls

from enginesmith_operator.objects.names import target_name

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "cls"
CPU: Document = {"name": "cpu", "backend": "onnxruntime", "replicas": 2}
# No node has so many processors, so that the build waits for as long as a test wants.
NEVER_BUILT = {"resources": {"requests": {"cpu": "1k"}}}
SECONDS = 300.0
SERVERS = "app.kubernetes.io/component=server"
EDITS: tuple[Document, ...] = (
    {"spec": {"replicas": 5}},
    {"spec": {"template": {"spec": {"affinity": None}}}},
    {"spec": {"template": {"spec": {"containers": [{"name": "server", "workingDir": "/other"}]}}}},
    {"metadata": {"labels": {"app.kubernetes.io/component": "mine", "app.kubernetes.io/managed-by": None}}},
)
GARBAGE: tuple[list[Document], ...] = (
    [{"op": "remove", "path": "/status"}],
    [{"op": "replace", "path": "/status/preparation/phase", "value": "Pending"}],
    [{"op": "remove", "path": "/status/preparation/key"}],
    [{"op": "replace", "path": "/status/conditions/0/lastTransitionTime", "value": "0000-01-01T00:00:00Z"}],
    [
        {"op": "replace", "path": "/status/targets/0/toolchain/name", "value": "nonsense"},
        {"op": "replace", "path": "/status/targets/0/toolchain/image", "value": "nonsense"},
    ],
    [{"op": "replace", "path": "/status/targets", "value": [{"name": "gone", "phase": "Serving"}]}],
    [
        {"op": "replace", "path": "/status/serving", "value": "7/9"},
        {"op": "replace", "path": "/status/observedGeneration", "value": 99},
    ],
)


@pytest.fixture
def tenant(small_tenant: Tenant) -> Tenant:
    """A namespace for engines of a small model."""
    return small_tenant


@pytest.fixture
def serving(tenant: Tenant) -> Tenant:
    """A namespace in which an engine serves with two replicas."""
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    return tenant


def only(tenant: Tenant, kind: str, selector: str = "") -> Document:
    """Return the only object of a kind."""
    (found,) = tenant.get(kind, f"--selector={selector}")["items"]
    return dict(found)


def names(tenant: Tenant, kind: str, selector: str = "") -> list[str]:
    """Return the names of all objects of a kind that are not on their way out."""
    found = tenant.get(kind, f"--selector={selector}")["items"]
    return [one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]]


def without_times(status: Document) -> Document:
    """Return a status without its moments."""
    return dict(json.loads(json.dumps(status), object_hook=_timeless))


def _timeless(found: Document) -> Document:
    moments = {"lastTransitionTime", "since", "resolvedAt", "finishedAt"}
    return {key: value for key, value in found.items() if key not in moments}


def test_objects_that_are_deleted_by_hand_are_made_again(serving: Tenant, calls: OperatorCalls) -> None:
    for kind in ("poddisruptionbudgets", "services", "deployments"):
        before = {one["metadata"]["name"]: one["metadata"]["uid"] for one in serving.get(kind)["items"]}
        assert before

        serving.kubectl("delete", kind, "--all")

        serving.until(partial(made_again, serving, kind, before), f"all {kind} are made again", seconds=SECONDS)
    serving.until_ready(NAME)
    calls.until_quiet()


def made_again(tenant: Tenant, kind: str, before: Document) -> bool:
    """Whether all objects of a kind that had these uids by name are there under others."""
    after = {one["metadata"]["name"]: one["metadata"]["uid"] for one in tenant.get(kind)["items"]}
    return after.keys() == before.keys() and not set(after.values()) & set(before.values())


def test_a_deployment_that_is_edited_by_hand_is_put_back_and_goes_on_serving(
    serving: Tenant, calls: OperatorCalls
) -> None:
    before = only(serving, "deployment")

    for change in EDITS:
        patch = json.dumps(change)
        serving.kubectl("patch", "deployment", before["metadata"]["name"], "--type=strategic", "-p", patch)
        serving.until(lambda: as_made(only(serving, "deployment")) == as_made(before), patch, seconds=SECONDS)

    serving.until_ready(NAME)
    calls.until_quiet()
    assert only(serving, "deployment")["metadata"]["uid"] == before["metadata"]["uid"]


def as_made(deployment: Document) -> tuple[object, ...]:
    """Return what the operator made of a Deployment."""
    metadata = deployment["metadata"]
    return deployment["spec"], metadata["labels"], metadata["ownerReferences"]


def test_a_build_and_its_job_that_are_deleted_by_hand_are_made_again(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls
) -> None:
    tenant.apply(NAME, [CPU], build=NEVER_BUILT)
    tenant.until(lambda: tenant.condition(NAME, "Built").get("reason") == "Unschedulable", "the build waits")
    build = only(tenant, "enginebuild")["metadata"]
    job = tenant.get("job", build["name"])["metadata"]
    calls.until_quiet()

    tenant.kubectl("delete", "job", build["name"])
    tenant.until(lambda: build["name"] in names(tenant, "jobs"), "the Job is there", seconds=SECONDS)
    assert tenant.get("job", build["name"])["metadata"]["uid"] != job["uid"]
    assert only(tenant, "enginebuild")["metadata"]["uid"] == build["uid"]
    tenant.kubectl("delete", "enginebuild", build["name"])
    tenant.until(lambda: names(tenant, "enginebuilds") == [build["name"]], "the build is there", seconds=SECONDS)
    assert only(tenant, "enginebuild")["metadata"]["uid"] != build["uid"]
    tenant.until(lambda: build["name"] in names(tenant, "jobs"), "the new build's Job is there", seconds=SECONDS)
    tenant.apply(NAME, [CPU])

    tenant.until_ready(NAME)
    assert [line for line in written_statuses(cluster, tenant) if "NameTaken" in line] == []


def test_a_preparation_that_is_deleted_while_it_runs_is_begun_again(tenant: Tenant) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until(lambda: names(tenant, "jobs"), "the preparation is there")
    tenant.kubectl("delete", "jobs", "--all")

    tenant.until_ready(NAME)


def test_a_build_that_is_deleted_after_its_engine_was_stored_is_not_missed(
    serving: Tenant, calls: OperatorCalls
) -> None:
    calls.until_quiet()
    before = as_made(only(serving, "deployment"))

    serving.kubectl("delete", "enginebuilds", "--all")
    calls.until_quiet()

    assert names(serving, "enginebuilds") == []
    assert as_made(only(serving, "deployment")) == before
    assert serving.condition(NAME, "Ready")["status"] == "True"
    (engine,) = serving.target(NAME, CPU["name"])["engines"]
    assert engine["stored"]


def test_a_garbled_status_is_found_out_again_and_disturbs_nothing_that_serves(
    serving: Tenant, calls: OperatorCalls
) -> None:
    calls.until_quiet()
    before = without_times(serving.get("inferenceengine", NAME)["status"])
    servers = sorted(names(serving, "pods", SERVERS))
    assert len(servers) == CPU["replicas"]

    for garbage in GARBAGE:
        patch = json.dumps(garbage)
        serving.kubectl("patch", "inferenceengine", NAME, "--subresource=status", "--type=json", "-p", patch)
        serving.until(lambda: status_of(serving, "inferenceengine") == before, patch, seconds=SECONDS)

    calls.until_quiet()
    assert sorted(names(serving, "pods", SERVERS)) == servers


def status_of(tenant: Tenant, kind: str) -> Document:
    """Return the status of the only object of a kind, without its moments."""
    return without_times(only(tenant, kind).get("status") or {})


def test_a_garbled_status_of_a_build_is_found_out_again(serving: Tenant, calls: OperatorCalls) -> None:
    calls.until_quiet()
    name, before = only(serving, "enginebuild")["metadata"]["name"], status_of(serving, "enginebuild")

    for garbage in ({}, {"phase": "Failed"}, {"phase": "Succeeded"}, {"phase": "Building"}):
        patch = json.dumps([{"op": "replace", "path": "/status", "value": garbage}])
        serving.kubectl("patch", "enginebuild", name, "--subresource=status", "--type=json", "-p", patch)
        serving.until(lambda: status_of(serving, "enginebuild") == before, patch, seconds=SECONDS)

    calls.until_quiet()
    assert serving.condition(NAME, "Ready")["status"] == "True"


@pytest.fixture
def derived_names(tenant: Tenant) -> dict[str, str]:
    """The names of an engine's objects by kind, and a specification of a build; the engine itself is gone again."""
    tenant.apply(NAME, [CPU], build=NEVER_BUILT)
    tenant.until(lambda: names(tenant, "enginebuilds"), "the build is there")
    build = only(tenant, "enginebuild")
    deployment = target_name(NAME, "cpu")
    found = {
        "Deployment": deployment,
        "PodDisruptionBudget": deployment,
        "Service": NAME,
        "EngineBuild": build["metadata"]["name"],
        "Job": only(tenant, "jobs", "app.kubernetes.io/component=preparation")["metadata"]["name"],
        "spec": json.dumps(build["spec"]),
    }
    tenant.kubectl("delete", "inferenceengine", NAME, "--cascade=foreground", "--timeout=300s")
    return found


def _foreign(kind: str, found: dict[str, str], namespace: str) -> Document:
    pod: Document = {
        "metadata": {"labels": {"app": "mine"}},
        "spec": {
            "nodeSelector": {"example.com/nowhere": "true"},
            "containers": [{"name": "mine", "image": "example.com/mine:1"}],
        },
    }
    selector = {"matchLabels": {"app": "mine"}}
    version, spec = {
        "Deployment": ("apps/v1", {"selector": selector, "template": pod}),
        "Job": ("batch/v1", {"template": pod | {"spec": pod["spec"] | {"restartPolicy": "Never"}}}),
        "Service": ("v1", {"selector": {"app": "mine"}, "ports": [{"port": 1, "protocol": "TCP", "targetPort": 1}]}),
        "PodDisruptionBudget": ("policy/v1", {"selector": selector, "minAvailable": 1}),
        "EngineBuild": ("enginesmith.io/v1alpha1", json.loads(found["spec"]) | {"target": "mine"}),
    }[kind]
    metadata = {"name": found[kind], "namespace": namespace, "labels": {"app": "mine"}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def test_names_of_ours_that_a_stranger_has_are_conflicts_and_used_once_they_are_free(
    cluster: Cluster, tenant: Tenant, derived_names: dict[str, str], calls: OperatorCalls
) -> None:
    # In the order in which an engine comes to need them.
    kinds = ("Job", "Service", "EngineBuild", "Deployment", "PodDisruptionBudget")
    cluster.apply(*(_foreign(kind, derived_names, tenant.namespace) for kind in kinds))
    before = {kind: untouched(tenant.get(kind, derived_names[kind], "--show-managed-fields")) for kind in kinds}
    tenant.apply(NAME, [CPU])

    for kind in kinds:
        name = derived_names[kind]
        tenant.until(partial(names_conflict, tenant, f"{kind} {name}"), f"{kind} is a conflict", seconds=SECONDS)
        behind = tenant.condition(NAME, "UpToDate")
        assert (behind["status"], behind["reason"]) == ("False", "NameTaken")
        calls.until_quiet()
        assert untouched(tenant.get(kind, name, "--show-managed-fields")) == before[kind]
        tenant.kubectl("delete", kind, name)

    tenant.until_ready(NAME)
    assert conflict(tenant) == ""
    told = [one["message"] for one in tenant.events() if one["reason"] == "NameTaken"]
    assert any(derived_names["Job"] in message for message in told), told
    assert len(told) == len(set(told))


def untouched(found: Document) -> tuple[object, ...]:
    """Return what only its owner may change of an object, and whether the operator did so beside."""
    metadata = found["metadata"]
    fields = [(one["manager"], one.get("subresource", "")) for one in metadata["managedFields"]]
    ours = [one for one in fields if "enginesmith" in one[0] and one[1] != "status"]
    return found["spec"], metadata["uid"], metadata["labels"], metadata.get("ownerReferences"), ours


def written_statuses(cluster: Cluster, tenant: Tenant) -> list[str]:
    """Return every status that was written in the namespace, as the audit log has it."""
    lines = cluster.audit_log.read_text().splitlines()
    return [line for line in lines if tenant.namespace in line and '"subresource":"status"' in line]


def names_conflict(tenant: Tenant, name: str) -> bool:
    """Return whether the condition names this object."""
    return name in conflict(tenant)


def conflict(tenant: Tenant) -> str:
    """Return which names somebody else has."""
    return str(tenant.condition(NAME, "Conflict").get("message", ""))


def test_an_engine_that_is_deleted_and_made_anew_at_once_serves_with_objects_of_its_own(
    cluster: Cluster, serving: Tenant, calls: OperatorCalls
) -> None:
    before = serving.get("inferenceengine", NAME)["metadata"]["uid"]
    serving.kubectl("delete", "inferenceengine", NAME)
    serving.apply(NAME, [CPU])

    serving.until_ready(NAME)
    calls.until_quiet()
    assert written_statuses(cluster, serving) != []
    assert [line for line in written_statuses(cluster, serving) if "NameTaken" in line] == []
    now = serving.get("inferenceengine", NAME)["metadata"]["uid"]
    assert now != before
    for kind in ("deployments", "services", "poddisruptionbudgets"):
        for one in serving.get(kind)["items"]:
            assert [owner["uid"] for owner in one["metadata"]["ownerReferences"]] == [now]


def test_a_namespace_that_is_deleted_goes_with_everything_in_it(
    cluster: Cluster, serving: Tenant, calls: OperatorCalls
) -> None:
    cluster.kubectl("delete", "namespace", serving.namespace, "--timeout=300s")
    calls.until_quiet()

    assert cluster.run("kubectl", "get", "namespace", serving.namespace).returncode != 0
    # The fixtures' own end needs it.
    cluster.kubectl("create", "namespace", serving.namespace)
