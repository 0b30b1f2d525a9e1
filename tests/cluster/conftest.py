"""A real cluster for the tests of this folder: brought up where none runs, and left up."""

import fcntl
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "enginesmith-system"

_OPERATOR = "deployment/enginesmith-operator"
_OPERATOR_PODS = "app.kubernetes.io/component=operator"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The development cluster, as an administrator reaches it.

    Attributes:
        environment: the variables of `hack/cluster env`.
    """

    environment: dict[str, str]

    @property
    def registry(self) -> str:
        """Host and port of the registry that nodes pull from (plain HTTP)."""
        return self.environment["ENGINESMITH_REGISTRY"]

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return Path(self.environment["ENGINESMITH_AUDIT_LOG"])

    @property
    def s3(self) -> dict[str, str]:
        """The S3 account and endpoint, as the variables that clients read."""
        text = Path(self.environment["ENGINESMITH_S3_ACCOUNT"]).read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def run(self, *command: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program with the cluster's variables, and let the test look at how it ended."""
        variables = {**os.environ, **self.environment}
        return subprocess.run(command, input=stdin, env=variables, capture_output=True, text=True, check=False)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints; fail the test where it fails."""
        done = self.run("kubectl", *arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def apply(self, *documents: dict[str, object]) -> None:
        """Apply objects on the server's side."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return an object, or a list of them."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o=json"))
        return found


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
