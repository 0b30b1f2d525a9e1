"""A real cluster for the tests of this folder: brought up where none runs, and left up."""

import fcntl
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant, s3_secret

__all__ = ["ROOT", "SYSTEM", "scale_operator"]

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "enginesmith-system"

_OPERATOR = "deployment/enginesmith-operator"
_OPERATOR_PODS = "app.kubernetes.io/component=operator"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that is up. The command waits for one that is under way and takes a second where all is up."""
    up = subprocess.run([ROOT / "hack/cluster", "up"], capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stdout + up.stderr
    env = subprocess.run(
        ["bash", "-c", 'eval "$("$0" env)" && env -0', ROOT / "hack/cluster"], capture_output=True, check=True
    )
    shown = dict(line.split("=", 1) for line in env.stdout.decode().split("\0") if line)
    names = {name for name in shown if name.startswith("ENGINESMITH_")} | {"KUBECONFIG", "PATH"}
    return Cluster(environment={name: shown[name] for name in names})


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> dict[str, str]:
    """The product's images, built from this checkout: references by digest, which every node has pulled."""
    loaded = cluster.run(ROOT / "hack/cluster", "load")
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    references: dict[str, str] = json.loads(Path(cluster.environment["ENGINESMITH_IMAGES"]).read_text())
    return references


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def classifier(cluster: Cluster, ocr_models: Path) -> dict[str, Any]:
    """The text direction classifier in a bucket of the S3 server, as `spec.model` names it."""
    uri = "s3://models/ocr/cls.onnx"
    upload = cluster.run(
        *(sys.executable, ROOT / "examples/cluster/upload.py", ocr_models / "cls.onnx", uri), variables=cluster.s3
    )
    assert upload.returncode == 0, upload.stderr
    options = {"endpoint": cluster.s3["AWS_ENDPOINT_URL"], "region": "us-east-1"}
    return {"uri": uri, "options": options, "secretRef": {"name": "s3"}}


@pytest.fixture
def tenant(cluster: Cluster, namespace: str, classifier: dict[str, Any]) -> Iterator[Tenant]:
    """A namespace of the test's own with an account for the S3 server; its engines are gone afterwards."""
    cluster.apply(s3_secret(cluster, namespace))
    yield Tenant(cluster=cluster, namespace=namespace, model=classifier)
    cluster.kubectl("-n", namespace, "delete", "inferenceengines", "--all", "--cascade=foreground", "--timeout=90s")


@pytest.fixture
def hardware(cluster: Cluster) -> Iterator[None]:
    """The GPUs, their labels and the simulated nodes for this test alone; afterwards they are what they were."""
    with Path(cluster.environment["KUBECONFIG"]).with_name("hardware.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _wait_for_free_gpus(cluster)
        yield
        restored = cluster.run(ROOT / "hack/cluster", "restore")
        assert restored.returncode == 0, restored.stdout + restored.stderr


@pytest.fixture
def operator(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """The operator of this checkout, installed by its Helm chart; tests that run one of their own wait meanwhile."""
    with _operator_lock(cluster).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(cluster, images)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@pytest.fixture
def no_operator(cluster: Cluster) -> Iterator[None]:
    """A cluster whose installed operator stands still; it runs again afterwards."""
    with _operator_lock(cluster).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = cluster.run("kubectl", "-n", SYSTEM, "get", _OPERATOR).returncode == 0
        if installed:
            scale_operator(cluster, 0)
        yield
        if installed:
            scale_operator(cluster, 2)


def scale_operator(cluster: Cluster, replicas: int) -> None:
    """Stop or start the installed operator, and wait until it has stopped or is ready."""
    cluster.kubectl("-n", SYSTEM, "scale", _OPERATOR, f"--replicas={replicas}")
    if replicas:
        cluster.kubectl("-n", SYSTEM, "rollout", "status", _OPERATOR, "--timeout=90s")
    else:
        cluster.kubectl("-n", SYSTEM, "wait", "pod", f"--selector={_OPERATOR_PODS}", "--for=delete", "--timeout=60s")


def _operator_lock(cluster: Cluster) -> Path:
    return Path(cluster.environment["KUBECONFIG"]).with_name("operator.lock")


def _install(cluster: Cluster, images: dict[str, str]) -> None:
    """Install or upgrade the chart where the images or the chart differ from what was installed last."""
    values = cluster.run(sys.executable, ROOT / "examples/cluster/values.py")
    assert values.returncode == 0, values.stderr
    chart = ROOT / "charts/enginesmith"
    content = sha256(json.dumps([images, values.stdout]).encode())
    for path in sorted(chart.rglob("*")):
        content.update(path.read_bytes() if path.is_file() else b"")
    stamp = Path(cluster.environment["KUBECONFIG"]).with_name("installed.sha256")
    running = cluster.run("kubectl", "-n", SYSTEM, "get", _OPERATOR, "-o=jsonpath={.status.readyReplicas}").stdout
    if running == "2" and stamp.exists() and stamp.read_text() == content.hexdigest():
        return
    helm = subprocess.check_output([ROOT / "hack/tool", "helm"], text=True).strip()
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(chart / "crds"))
    installed = cluster.run(
        *(helm, "upgrade", "--install", "enginesmith", chart, "--namespace", SYSTEM, "--create-namespace"),
        *("--skip-crds", "--values", "-", "--wait", "--timeout", "120s"),
        stdin=values.stdout,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    stamp.write_text(content.hexdigest())


def _wait_for_free_gpus(cluster: Cluster) -> None:
    """Wait for pods of an earlier test that are on their way out; name those that stay."""
    for _ in range(120):
        holders = _gpu_holders(cluster)
        if not holders:
            return
        time.sleep(0.5)
    pytest.fail(f"this test needs all GPUs of the cluster, and these pods have some: {', '.join(holders)}")


def _gpu_holders(cluster: Cluster) -> list[str]:
    return [
        f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        for one in cluster.get("pods", "--all-namespaces")["items"]
        if one["status"]["phase"] in {"Pending", "Running"} and one["spec"].get("nodeName")
        for container in one["spec"]["containers"]
        if any(name.startswith("nvidia.com/") for name in container.get("resources", {}).get("limits", {}))
    ]
