"""The cluster with the product in it, for tests and benchmarks alike: brought up, images loaded, operator installed.

Several programs use one cluster, so what only one of them may have at a time is behind a file lock.
"""

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from tests.cluster.access import Cluster

from enginesmith_operator.kinds import REGISTER

__all__ = [
    "CHART",
    "ROOT",
    "SYSTEM",
    "change_catalog",
    "chart_values",
    "forget_operators",
    "hardware_to_oneself",
    "installed_operator",
    "load_images",
    "no_installed_operator",
    "open_cluster",
    "own_kinds",
    "run_helm",
    "scale_operator",
    "upgrade_to",
]

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "enginesmith-system"
CHART = ROOT / "charts/enginesmith"

_OPERATOR = "deployment/enginesmith-operator"
_OPERATOR_PODS = "app.kubernetes.io/component=operator"
_PATIENCE_SECONDS = 300.0


def open_cluster() -> Cluster:
    """Return a cluster that is up. The command waits for one that is under way and takes a second where all is up."""
    up = subprocess.run([ROOT / "hack/cluster", "up"], capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stdout + up.stderr
    env = subprocess.run(
        ["bash", "-c", 'eval "$("$0" env)" && env -0', ROOT / "hack/cluster"], capture_output=True, check=True
    )
    shown = dict(line.split("=", 1) for line in env.stdout.decode().split("\0") if line)
    names = {name for name in shown if name.startswith("ENGINESMITH_")} | {"KUBECONFIG", "PATH"}
    return Cluster(environment={name: shown[name] for name in names})


def load_images(cluster: Cluster, *toolchains: str) -> dict[str, str]:
    """Build the product's images from this checkout; return references by digest, which every node has pulled.

    Args:
        cluster: whose registry takes them.
        toolchains: whose images are built too; nodes pull them when a pod needs them.
    """
    loaded = cluster.run(ROOT / "hack/cluster", "load", *(f"--toolchain={name}" for name in toolchains))
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    references: dict[str, str] = json.loads(Path(cluster.environment["ENGINESMITH_IMAGES"]).read_text())
    return references


def change_catalog(cluster: Cluster, key: str, entry: Mapping[str, object] | None) -> None:
    """Set an entry of the operator's toolchain catalog; None takes it away."""
    patch = json.dumps({"data": {key: None if entry is None else json.dumps(entry)}})
    cluster.kubectl("-n", SYSTEM, "patch", "configmap", "enginesmith-toolchains", "--type=merge", "-p", patch)


@contextmanager
def hardware_to_oneself(cluster: Cluster) -> Iterator[None]:
    """Have the GPUs, their labels and the simulated nodes alone; afterwards they are what they were."""
    with Path(cluster.environment["KUBECONFIG"]).with_name("hardware.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _wait_for_free_gpus(cluster)
        try:
            yield
        finally:
            restored = cluster.run(ROOT / "hack/cluster", "restore")
            assert restored.returncode == 0, restored.stdout + restored.stderr


@contextmanager
def installed_operator(
    cluster: Cluster, images: dict[str, str], *, alone: bool = False, settings: Mapping[str, object] | None = None
) -> Iterator[None]:
    """Install the operator of this checkout with its Helm chart. Tests that run their own operator wait.

    Args:
        cluster: to install it in.
        images: of `load_images`. Where somebody has loaded newer ones meanwhile, those are installed, so that two who
            share the cluster do not put each other's back in turns.
        alone: whether others who use the installed operator wait too.
        settings: values of the chart that take the place of the development cluster's; the next one who has none gets
            the usual ones back. They are no others' business, so that it is had alone.
    """
    assert images
    with _operator_lock(cluster).open("w") as lock:
        with _turn(cluster):
            fcntl.flock(lock, fcntl.LOCK_EX if alone or settings else fcntl.LOCK_SH)
            values = chart_values(cluster) | dict(settings or {})
            if not _is_installed(cluster, values):
                fcntl.flock(lock, fcntl.LOCK_EX)
                _install(cluster, values)
            if not (alone or settings):
                fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def no_installed_operator(cluster: Cluster) -> Iterator[None]:
    """Have the installed operator stand still; it runs again afterwards."""
    with _operator_lock(cluster).open("w") as lock:
        with _turn(cluster):
            fcntl.flock(lock, fcntl.LOCK_EX)
        installed = cluster.run("kubectl", "-n", SYSTEM, "get", _OPERATOR).returncode == 0
        if installed:
            scale_operator(cluster, 0)
        try:
            yield
        finally:
            if installed:
                scale_operator(cluster, 2)


@contextmanager
def own_kinds(cluster: Cluster) -> Iterator[None]:
    """Install the CRDs of this checkout. Tests that change the CRDs wait until the block ends."""
    with _operator_lock(cluster).open("w") as lock:
        with _turn(cluster):
            fcntl.flock(lock, fcntl.LOCK_SH)
        cluster.define_kinds()
        yield


def scale_operator(cluster: Cluster, replicas: int) -> None:
    """Stop or start the installed operator, and wait until it has stopped or is ready."""
    if replicas:
        forget_operators(cluster)
    cluster.kubectl("-n", SYSTEM, "scale", _OPERATOR, f"--replicas={replicas}")
    if replicas:
        cluster.kubectl("-n", SYSTEM, "rollout", "status", _OPERATOR, "--timeout=300s")
    else:
        cluster.kubectl("-n", SYSTEM, "wait", "pod", f"--selector={_OPERATOR_PODS}", "--for=delete", "--timeout=300s")
        forget_operators(cluster)


def forget_operators(cluster: Cluster) -> None:
    """Let an operator work at once on what another one had that has just stopped."""
    cluster.kubectl("-n", "kube-system", "delete", "lease", REGISTER, "--ignore-not-found")


def _operator_lock(cluster: Cluster) -> Path:
    return Path(cluster.environment["KUBECONFIG"]).with_name("operator.lock")


@contextmanager
def _turn(cluster: Cluster) -> Iterator[None]:
    """Be the only one who waits for the operator's lock, so that a shared one becomes exclusive and shared again.

    Who waits for the operator alone keeps newcomers back, too: they would else share it among themselves for ever.
    """
    with _operator_lock(cluster).with_name("operator-turn.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def chart_values(cluster: Cluster) -> dict[str, object]:
    """Return the values for the development cluster."""
    printed = cluster.run(sys.executable, ROOT / "examples/cluster/values.py")
    assert printed.returncode == 0, printed.stderr
    values: dict[str, object] = json.loads(printed.stdout)
    return values


def _content(values: Mapping[str, object]) -> str:
    content = sha256(json.dumps(values).encode())
    for path in sorted(CHART.rglob("*")):
        content.update(path.read_bytes() if path.is_file() else b"")
    return content.hexdigest()


def _stamp(cluster: Cluster) -> Path:
    return Path(cluster.environment["KUBECONFIG"]).with_name("installed.sha256")


def _is_installed(cluster: Cluster, values: Mapping[str, object]) -> bool:
    stamp = _stamp(cluster)
    running = cluster.run("kubectl", "-n", SYSTEM, "get", _OPERATOR, "-o=jsonpath={.status.readyReplicas}").stdout
    return running == "2" and stamp.exists() and stamp.read_text() == _content(values)


def run_helm(cluster: Cluster, *words: str | Path, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run Helm, and let the test look at how it ended."""
    helm = subprocess.check_output([ROOT / "hack/tool", "helm"], text=True).strip()
    return cluster.run(helm, *words, stdin=stdin)


def upgrade_to(cluster: Cluster, chart: Path, values: Mapping[str, object], *, crds: bool = True) -> None:
    """Upgrade to a chart as docs/installation.md says; who needs the usual one next installs it again.

    Args:
        cluster: to upgrade in.
        chart: folder or archive.
        values: of the chart.
        crds: whether to apply the CRDs of this checkout first.
    """
    _stamp(cluster).unlink(missing_ok=True)
    if crds:
        cluster.define_kinds()
    done = run_helm(
        cluster,
        *("upgrade", "--install", "enginesmith", chart, "--namespace", SYSTEM, "--create-namespace"),
        *("--skip-crds", "--values", "-", "--wait", "--timeout", "300s"),
        stdin=json.dumps(values),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _install(cluster: Cluster, values: Mapping[str, object]) -> None:
    """Install or upgrade the chart."""
    upgrade_to(cluster, CHART, values)
    _stamp(cluster).write_text(_content(values))


def _wait_for_free_gpus(cluster: Cluster) -> None:
    """Wait for pods of an earlier test that are on their way out; name those that stay."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while holders := _gpu_holders(cluster):
        if time.monotonic() > give_up:
            break
        time.sleep(0.5)
    else:
        return
    pytest.fail(f"this test needs all GPUs of the cluster, and these pods have some: {', '.join(holders)}")


def _gpu_holders(cluster: Cluster) -> list[str]:
    return [
        f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        for one in cluster.get("pods", "--all-namespaces")["items"]
        if one["status"]["phase"] in {"Pending", "Running"} and one["spec"].get("nodeName")
        for container in one["spec"]["containers"]
        if any(name.startswith("nvidia.com/") for name in container.get("resources", {}).get("limits", {}))
    ]
