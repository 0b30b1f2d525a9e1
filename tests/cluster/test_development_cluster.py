"""The development cluster is what it claims to be: real nodes that pull, count and isolate, with GPUs by label only."""

import json
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.access import Cluster

from enginesmith_operator.planning.eligibility import build_eligibility
from enginesmith_operator.planning.hardware import NodeFacts, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = "--timeout=300s"


def wait_for(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + 300
    while not condition():
        if time.monotonic() > give_up:
            pytest.fail(f"never: {what}")
        time.sleep(0.2)


def pod(name: str, image: str, *program: str, gpus: dict[str, int] | None = None, **spec: object) -> dict[str, Any]:
    """A pod as restricted as the product's own."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python", "-c", "\n".join(program)],
        "resources": {"limits": gpus or {}},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    defaults = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "tolerations": tolerations}
    metadata = {"name": name, "labels": {"app": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], **defaults, **spec},
    }


def run_pod(cluster: Cluster, namespace: str, document: dict[str, Any]) -> tuple[str, str]:
    """Run a pod to its good end; return its log and its node."""
    name = document["metadata"]["name"]
    cluster.apply({**document, "metadata": {**document["metadata"], "namespace": namespace}})
    done = cluster.run(
        "kubectl", "-n", namespace, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", TIMEOUT
    )
    described = cluster.run("kubectl", "-n", namespace, "describe", "pod", name).stdout
    assert done.returncode == 0, described
    node = cluster.kubectl("-n", namespace, "get", "pod", name, "-o=jsonpath={.spec.nodeName}")
    return cluster.kubectl("-n", namespace, "logs", name), node


def node_facts(cluster: Cluster, name: str) -> NodeFacts:
    return read_node(NodeObject.model_validate(cluster.get("node", name)), load_label_mapping())


@pytest.mark.usefixtures("hardware")
def test_the_planner_sees_a_whole_a100_its_slices_and_two_l4(cluster: Cluster) -> None:
    a100, l4 = node_facts(cluster, "gpu-a100"), node_facts(cluster, "gpu-l4")
    assert (a100.product, l4.product) == ("NVIDIA-A100-SXM4-80GB", "NVIDIA-L4")
    offered = {(one.resource, one.mig_profile): one.allocatable for one in a100.offers}
    assert offered == {
        ("nvidia.com/gpu", None): 1,
        ("nvidia.com/mig-1g.10gb", "1g.10gb"): 2,
        ("nvidia.com/mig-2g.20gb", "2g.20gb"): 1,
        ("nvidia.com/mig-3g.40gb", "3g.40gb"): 1,
    }
    assert [(one.resource, one.allocatable) for one in l4.offers] == [("nvidia.com/gpu", 2)]
    assert all(build_eligibility(one).eligible for one in (a100, l4))


@pytest.mark.usefixtures("hardware")
@pytest.mark.parametrize(
    ("resource", "selector", "want_node", "want_device"),
    [
        ("nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-L4"}, "gpu-l4", "GPU-14"),
        ("nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, "gpu-a100", "GPU-a1"),
        ("nvidia.com/mig-1g.10gb", {}, "gpu-a100", "MIG-a1"),
    ],
)
def test_a_restricted_pod_of_the_product_s_image_gets_the_gpu_that_it_asks_for(
    cluster: Cluster,
    images: dict[str, str],
    namespace: str,
    resource: str,
    selector: dict[str, str],
    want_node: str,
    want_device: str,
) -> None:
    program = "import os, enginesmith_runtime.server; print(os.getuid(), os.environ['NVIDIA_VISIBLE_DEVICES'])"
    document = pod("gpu", images["enginesmith/runtime"], program, gpus={resource: 1}, nodeSelector=selector)
    log, node = run_pod(cluster, namespace, document)
    assert node == want_node
    assert log.startswith(f"65532 {want_device}")


@pytest.mark.usefixtures("hardware")
def test_the_scheduler_counts_gpus_and_keeps_a_third_pod_waiting(
    cluster: Cluster, images: dict[str, str], namespace: str
) -> None:
    sleeper = "import time; time.sleep(600)"
    selector = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    for name in ("first", "second", "third"):
        document = pod(name, images["enginesmith/runtime"], sleeper, gpus={"nvidia.com/gpu": 1}, nodeSelector=selector)
        cluster.apply({**document, "metadata": {"name": name, "namespace": namespace}})

    def phases() -> list[str]:
        return sorted(cluster.kubectl("-n", namespace, "get", "pods", "-o=jsonpath={.items[*].status.phase}").split())

    def said() -> str:
        return cluster.kubectl("-n", namespace, "get", "pods", "-o=jsonpath={.items[*].status.conditions[*].message}")

    wait_for(lambda: phases() == ["Pending", "Running", "Running"], "two pods run")
    wait_for(lambda: "Insufficient nvidia.com/gpu" in said(), "the scheduler says why the third one waits")
    cluster.kubectl("-n", namespace, "delete", "pods", "--all", "--wait=true")


@pytest.mark.usefixtures("hardware")
def test_a_gpu_that_its_plugin_withdraws_is_allocatable_no_more(cluster: Cluster) -> None:
    def has(count: str) -> bool:
        path = r"-o=jsonpath={.status.allocatable.nvidia\.com/gpu}"
        return cluster.kubectl("get", "node", "gpu-l4", path) == count

    for count in ("1", "0", "2"):
        changed = cluster.run(ROOT / "hack/cluster", "gpus", "gpu-l4", f"nvidia.com/gpu={count}")
        assert changed.returncode == 0, changed.stderr
        wait_for(partial(has, count), f"{count} GPUs")


def test_a_pod_reaches_another_node_s_pod_by_its_service_s_name(
    cluster: Cluster, images: dict[str, str], namespace: str
) -> None:
    server = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8080)"
    document = pod("server", images["enginesmith/runtime"], server, nodeName="cpu")
    cluster.apply({**document, "metadata": {"name": "server", "namespace": namespace, "labels": {"app": "server"}}})
    service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": "server", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    cluster.kubectl("-n", namespace, "wait", "pod/server", "--for=condition=Ready", "--timeout=300s")
    client = [
        "import socket, time, urllib.request",
        "for attempt in range(600):",
        "    try: status = urllib.request.urlopen('http://server', timeout=20).status; break",
        "    except OSError: time.sleep(0.2)",
        f"print(status, socket.gethostbyname('server.{namespace}.svc.cluster.local'))",
    ]
    log, _ = run_pod(cluster, namespace, pod("client", images["enginesmith/runtime"], *client, nodeName="gpu-l4"))
    address = cluster.kubectl("-n", namespace, "get", "service", "server", "-o=jsonpath={.spec.clusterIP}")
    assert log.split() == ["200", address]


@pytest.mark.usefixtures("cluster")
def test_an_address_of_services_that_none_has_refuses_connections() -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("10.96.255.254", 8001), timeout=60):
        pass


def test_an_owner_may_be_blocked_only_by_who_may_change_its_finalizers(cluster: Cluster, namespace: str) -> None:
    account = f"system:serviceaccount:{namespace}:default"
    cluster.kubectl("-n", namespace, "create", "role", "maps", "--verb=create", "--resource=configmaps")
    cluster.kubectl(
        "-n", namespace, "create", "rolebinding", "maps", "--role=maps", f"--serviceaccount={namespace}:default"
    )
    cluster.until_allowed(account, "create", "configmaps", namespace)
    cluster.kubectl("-n", namespace, "create", "deployment", "owner", "--image=none", "--replicas=0")
    uid = cluster.kubectl("-n", namespace, "get", "deployment", "owner", "-o=jsonpath={.metadata.uid}")
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "owner", "uid": uid}

    def create(name: str, *, block: bool) -> subprocess.CompletedProcess[str]:
        metadata = {"name": name, "namespace": namespace, "ownerReferences": [{**owner, "blockOwnerDeletion": block}]}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        return cluster.run("kubectl", f"--as={account}", "create", "-f", "-", stdin=json.dumps(document))

    assert create("free", block=False).returncode == 0
    refused = create("blocked", block=True)
    assert refused.returncode == 1
    assert "cannot set blockOwnerDeletion" in refused.stderr
    audited = [json.loads(line) for line in cluster.audit_log.read_text().splitlines() if namespace in line]
    by_account = [one for one in audited if one.get("impersonatedUser", {}).get("username") == account]
    # Discovery has no objectRef.
    mine = [one for one in by_account if one.get("objectRef", {}).get("resource") == "configmaps"]
    assert [(one["verb"], one["responseStatus"]["code"]) for one in mine] == [("create", 201), ("create", 403)]


def test_a_bucket_of_the_s3_server_takes_objects(cluster: Cluster) -> None:
    import s3fs  # noqa: PLC0415 - slow to import, and only for this test

    account = cluster.s3
    key, secret, endpoint = (account[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL"))
    files = s3fs.S3FileSystem(key=key, secret=secret, endpoint_url=endpoint, skip_instance_cache=True)
    files.pipe("engines/test/object", b"bytes")
    assert files.cat("engines/test/object") == b"bytes"
    files.rm("engines/test/object")


@pytest.mark.usefixtures("hardware")
def test_a_job_on_a_simulated_node_ends_with_the_message_that_its_pod_carries(cluster: Cluster, namespace: str) -> None:
    made = cluster.run(ROOT / "hack/cluster", "nodes", "3")
    assert made.returncode == 0, made.stdout + made.stderr
    template = {
        "metadata": {"annotations": {"enginesmith.io/simulated-termination-message": '{"said": true}'}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"},
            "tolerations": [{"key": "enginesmith.io/simulated", "operator": "Exists"}],
            "containers": [{"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": 1}}}],
        },
    }
    metadata = {"name": "simulated", "namespace": namespace}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}})
    cluster.kubectl("-n", namespace, "wait", "job/simulated", "--for=condition=Complete", "--timeout=300s")
    path = "-o=jsonpath={.items[0].status.containerStatuses[0].state.terminated.message}"
    assert cluster.kubectl("-n", namespace, "get", "pods", path) == '{"said": true}'


def test_up_touches_nothing_that_others_are_using(cluster: Cluster) -> None:
    used = [Path(cluster.environment["KUBECONFIG"]), Path(cluster.environment["PATH"].split(":")[0], "kubectl")]
    before = [path.lstat() for path in used]
    assert cluster.run(ROOT / "hack/cluster", "up").returncode == 0
    assert [(one.st_ino, one.st_mtime_ns) for one in before] == [
        (one.st_ino, one.st_mtime_ns) for one in (path.lstat() for path in used)
    ]


@pytest.mark.usefixtures("hardware")
def test_a_node_that_was_stopped_stays_so_until_everything_is_put_back(cluster: Cluster) -> None:
    def kubelet_runs() -> bool:
        lines = cluster.run(ROOT / "hack/cluster", "status").stdout.splitlines()
        return any(line.startswith("gpu-l4-kubelet") and "pid" in line for line in lines)

    for words in (["node", "gpu-l4", "stop"], ["up"], ["load"]):
        done = cluster.run(ROOT / "hack/cluster", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not kubelet_runs()
    assert cluster.run(ROOT / "hack/cluster", "restore").returncode == 0
    assert kubelet_runs()
