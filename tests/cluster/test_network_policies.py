"""The chart's NetworkPolicies under an enforcer: kube-network-policies judges each new connection of a pod.

The program's own packet rules need a kernel with NFT_QUEUE. iptables hands it the same packets where that is missing.
"""

import base64
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from development_cluster.layout import CONTROL
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

Document = dict[str, Any]

_QUEUE = "100"
_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_QUEUED = (("POSTROUTING", "-s"), ("POSTROUTING", "-d"), ("INPUT", "-s"))
_LISTEN = (
    "import socket, time; s = [socket.create_server(('', p)) for p in (8001, 9999)]; print('up'); time.sleep(3600)"
)


@pytest.fixture
def enforcer(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[None]:
    """kube-network-policies for all pods of this machine."""
    reads = [
        {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
    ]
    name, rbac = f"enforcer-{namespace}", "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": "enforcer", "namespace": namespace}
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": name}
    head: Document = {"apiVersion": f"{rbac}/v1", "metadata": {"name": name}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "enforcer", "namespace": namespace}},
        head | {"kind": "ClusterRole", "rules": reads},
        head | {"kind": "ClusterRoleBinding", "roleRef": role, "subjects": [account]},
    )
    (tmp_path / "token").write_text(cluster.kubectl("-n", namespace, "create", "token", "enforcer"))
    known = yaml.safe_load(Path(cluster.environment["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(known["certificate-authority-data"]))
    host, _, port = known["server"].removeprefix("https://").partition(":")
    program = subprocess.check_output([ROOT / "hack/tool", "kube-network-policies"], text=True).strip()
    mounted = f"mount -t tmpfs none /run && mkdir -p {_FOLDER} && mount --bind {tmp_path} {_FOLDER}"
    arguments = f"--disable-nri --nfqueue-id={_QUEUE} --metrics-bind-address=127.0.0.1:0"
    command = ["unshare", "--mount", "sh", "-c", f"{mounted} && exec {program} {arguments}"]
    variables = {**os.environ, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        for chain, direction in _QUEUED:
            _rule("-I", chain, direction)
        yield
    finally:
        for chain, direction in _QUEUED:
            _rule("-D", chain, direction)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        for kind in ("clusterrolebinding", "clusterrole"):
            cluster.kubectl("delete", kind, name, "--ignore-not-found")


def _rule(action: str, chain: str, direction: str) -> None:
    queue = ("-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE", "--queue-num", _QUEUE, "--queue-bypass")
    subprocess.run(["iptables", "-t", "mangle", action, chain, direction, CONTROL.pods, *queue], check=True)


def pod(name: str, image: str, labels: dict[str, str], program: str) -> Document:
    command = ["/opt/enginesmith/bin/python", "-I", "-u", "-c", program]
    container = {"name": "main", "image": image, "command": command}
    spec = {
        "automountServiceAccountToken": False,
        "nodeSelector": {"kubernetes.io/hostname": "cpu"},
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532},
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


@pytest.fixture
def pods(cluster: Cluster, namespace: str, images: dict[str, str]) -> Tenant:
    """A namespace with a builder, a server that listens on two ports, and a client."""
    ours = {"app.kubernetes.io/managed-by": "enginesmith"}
    image = images["enginesmith/runtime"]
    wanted = (
        pod("builder", image, ours | {"app.kubernetes.io/component": "build"}, _LISTEN),
        pod("server", image, ours | {"app.kubernetes.io/component": "server"}, _LISTEN),
        pod("client", image, {"app": "client"}, _LISTEN),
    )
    cluster.apply(*(one | {"metadata": one["metadata"] | {"namespace": namespace}} for one in wanted))
    cluster.kubectl("-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=300s")
    return Tenant(cluster=cluster, namespace=namespace, model={})


def reaches(tenant: Tenant, name: str, host: str, port: int) -> bool:
    """Whether a pod can connect."""
    program = f"import socket; socket.create_connection(({host!r}, {port}), 3)"
    command = ("/opt/enginesmith/bin/python", "-c", program)
    done = tenant.cluster.run("kubectl", "-n", tenant.namespace, "exec", name, "--", *command)
    assert done.returncode == 0 or "Error" in done.stderr, done.stderr
    return done.returncode == 0


def apply_policies(tenant: Tenant, *allowed: str) -> None:
    """Apply what the chart has for the namespace."""
    helm = subprocess.check_output([ROOT / "hack/tool", "helm"], text=True).strip()
    values = {
        "networkPolicy": {"tenants": {"namespaces": [tenant.namespace]}},
        "config": {"addresses": {"allowed": list(allowed)}},
    }
    command = [helm, "template", "enginesmith", str(ROOT / "charts/enginesmith"), "--values", "-"]
    shown = ("--show-only", "templates/tenant-network-policies.yaml")
    made = subprocess.run([*command, *shown], input=yaml.safe_dump(values), capture_output=True, text=True, check=True)
    tenant.kubectl("apply", "--server-side", "-f", "-", stdin=made.stdout)


@pytest.mark.usefixtures("enforcer")
def test_builders_reach_what_is_allowed_and_servers_are_reached_at_their_ports(pods: Tenant) -> None:
    server = pods.get("pod", "server")["status"]["podIP"]
    store = (CONTROL.host, int(pods.cluster.s3["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    api = (CONTROL.api_service, 443)
    for name, place in (("builder", store), ("builder", api), ("builder", (server, 9999)), ("client", (server, 9999))):
        assert reaches(pods, name, *place), (name, place)

    apply_policies(pods)
    pods.until(lambda: not reaches(pods, "builder", *store), "the policy holds")
    assert not reaches(pods, "builder", *api)
    assert not reaches(pods, "builder", server, 8001)
    assert reaches(pods, "client", server, 8001)
    assert not reaches(pods, "client", server, 9999)
    assert reaches(pods, "client", *store)

    apply_policies(pods, f"{CONTROL.host}/32")
    pods.until(lambda: reaches(pods, "builder", *store), "the range is allowed")
    assert not reaches(pods, "builder", server, 8001)
