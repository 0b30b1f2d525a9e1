"""A node: namespaces, a cgroup, a bridge, a containerd and a kubelet of its own."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Final

from development_cluster import daemons
from development_cluster.certificates import client_kubeconfig, make_certificate
from development_cluster.cgroups import make_cgroups
from development_cluster.commands import attempt, run
from development_cluster.daemons import URGENT, Daemon, enter_command
from development_cluster.errors import ClusterError
from development_cluster.files import write_json, write_text
from development_cluster.host_network import make_bridge
from development_cluster.http_probe import answers
from development_cluster.layout import CONTROL, Layout
from development_cluster.node_specs import NodeSpec
from development_cluster.programs import kubectl, tool

__all__ = [
    "PAUSE_IMAGE",
    "containerd_settings",
    "delete_mount_points",
    "in_node",
    "is_away",
    "kill_node",
    "send_away",
    "start_node",
    "stop_kubelet",
    "wait_for_node",
]

PAUSE_IMAGE: Final = f"{CONTROL.registry}/pause:1"

# A node's own folder, and the path under which its programs see it.
_BINDS: Final = {
    "kubelet": "/var/lib/kubelet",
    "containerd": "/var/lib/containerd",
    "containerd-run": "/run/containerd",
    "containerd-settings": "/etc/containerd",
    "cni": "/var/lib/cni",
    "cni-settings": "/etc/cni/net.d",
    "netns": "/run/netns",
    "cdi": "/run/cdi",
    "log": "/var/log",
}
# What a machine forgets when it restarts.
_RUN: Final = ("containerd-run", "netns", "cdi")
_SOCKET = "/run/containerd/containerd.sock"


def start_node(layout: Layout, node: NodeSpec) -> bool:
    """Start what of the node does not run: namespaces, containerd, kubelet; return whether kubelet was started."""
    _away(layout, node).unlink(missing_ok=True)
    make_cgroups(layout.cgroup(node.name))
    make_bridge(node.bridge, str(node.address), node.subnet.prefixlen)
    _write_settings(layout, node)
    first = _start_namespaces(layout, node)
    containerd = f"{node.name}-containerd"
    daemons.start(layout, Daemon(name=containerd, command=["containerd"], node_pid=first))
    answers_version = partial(attempt, [*enter_command(first), "ctr", "version"])
    daemons.wait_until(layout, containerd, answers_version, what="answering")
    if daemons.running(layout, f"{node.name}-kubelet") is None:
        _forget_gpus(layout, node)
    return daemons.start(layout, _kubelet(layout, node, first))


def wait_for_node(layout: Layout, node: NodeSpec) -> None:
    """Wait until the node's kubelet is healthy and the API server calls the node Ready."""
    name = f"{node.name}-kubelet"
    daemons.wait_until(layout, name, lambda: answers(f"http://{node.address}:10248/healthz"), what="healthy")
    ready = '-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    command = ["get", "node", node.name, "--ignore-not-found", ready]
    daemons.wait_until(layout, name, lambda: kubectl(layout, *command) == "True", what="Ready")


def in_node(layout: Layout, node: NodeSpec, *command: str) -> str:
    """Run a program to its end in the node's namespaces and return its output.

    Raises:
        ClusterError: the node does not run, or the program failed.
    """
    first = daemons.running(layout, node.name)
    if first is None:
        raise ClusterError(f"node {node.name} does not run", remedy="hack/cluster up")
    return run([*enter_command(first.pid), *command])


def is_away(layout: Layout, node: NodeSpec) -> bool:
    """Return whether a user stopped or killed the node, to see the effect."""
    return _away(layout, node).exists()


def send_away(layout: Layout, node: NodeSpec) -> None:
    """Remember that the node is not to be started until it is asked for by name, or everything is put back."""
    _away(layout, node).touch()


def stop_kubelet(layout: Layout, node: NodeSpec) -> None:
    """Stop only kubelet: its pods continue, and the cluster gets no more reports about them."""
    daemons.stop(layout, f"{node.name}-kubelet")


def kill_node(layout: Layout, node: NodeSpec) -> None:
    """End every process of the node at once, as a power cut would; its mounts go with it."""
    first = daemons.running(layout, node.name)
    if first is not None:
        os.kill(first.pid, signal.SIGKILL)
    for name in (node.name, f"{node.name}-containerd", f"{node.name}-kubelet", f"{node.name}-gpus"):
        daemons.stop(layout, name)


def delete_mount_points(layout: Layout) -> None:
    """Delete the folders that were made as mount points for nodes, where they are empty."""
    for path in reversed(_made_mount_points(layout)):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _make_mount_points(layout: Layout) -> None:
    made = _made_mount_points(layout)
    for path in map(Path, _BINDS.values()):
        made += [folder for folder in reversed((path, *path.parents)) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    write_text(layout.data / "mount_points", "".join(f"{path}\n" for path in made))


def _made_mount_points(layout: Layout) -> list[Path]:
    file = layout.data / "mount_points"
    return [Path(line) for line in file.read_text().splitlines()] if file.exists() else []


def _forget_gpus(layout: Layout, node: NodeSpec) -> None:
    """Take the GPUs off a node that the API server knows: kubelet does so itself when it starts, a moment too late.

    A caller that waits for GPUs would mistake those of the last kubelet for this one's.
    """
    if not node.gpus or not kubectl(layout, "get", "node", node.name, "--ignore-not-found", "-o=name"):
        return
    none = dict.fromkeys(node.gpus, "0")
    patch = json.dumps({"status": {"capacity": none, "allocatable": none}})
    kubectl(layout, "patch", "node", node.name, "--subresource=status", "--type=merge", f"--patch={patch}")


def _folder(layout: Layout, node: NodeSpec) -> Path:
    return layout.nodes / node.name


def _away(layout: Layout, node: NodeSpec) -> Path:
    return layout.nodes / f"{node.name}.away"


def _start_namespaces(layout: Layout, node: NodeSpec) -> int:
    found = daemons.running(layout, node.name)
    if found is not None:
        return found.pid
    folder = _folder(layout, node)
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    for own in _RUN:
        shutil.rmtree(folder / own, ignore_errors=True)
    for own in _BINDS:
        (folder / own).mkdir(exist_ok=True)
    _make_mount_points(layout)
    (folder / "mounts").write_text("".join(f"{own} {path}\n" for own, path in _BINDS.items()))
    init = Path(__file__).parent / "data" / "node-init.sh"
    daemons.start_namespaces(layout, node.name, [init, node.name, folder])
    daemons.wait_until(layout, node.name, ready.exists, what="set up")
    first = daemons.running(layout, node.name)
    if first is None:
        raise ClusterError(f"node {node.name} ended at its start", log=layout.logs / f"{node.name}.log")
    return first.pid


def _kubelet(layout: Layout, node: NodeSpec, first: int) -> Daemon:
    user = f"system:node:{node.name}"
    kubeconfig = client_kubeconfig(layout, node.name, user=user, group="system:nodes")
    return Daemon(
        name=f"{node.name}-kubelet",
        priority=URGENT,
        node_pid=first,
        command=[
            tool("kubelet"),
            f"--config={layout.settings / f'{node.name}-kubelet.json'}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
        ],
    )


def _write_settings(layout: Layout, node: NodeSpec) -> None:
    folder = _folder(layout, node)
    certificate, key = make_certificate(
        layout, f"{node.name}-kubelet", user=f"system:node:{node.name}", group="system:nodes", hosts=[str(node.address)]
    )
    kubelet = _kubelet_settings(layout, node, certificate, key)
    write_json(layout.settings / f"{node.name}-kubelet.json", kubelet)
    containerd = folder / "containerd-settings"
    write_text(containerd / "config.toml", containerd_settings(node))
    mirror = f'[host."http://{CONTROL.registry}"]\ncapabilities = ["pull", "resolve"]\n'
    write_text(containerd / "certs.d" / CONTROL.registry / "hosts.toml", mirror)
    write_json(folder / "cni-settings" / "10-bridge.conflist", _pod_network(node))


# Root without CAP_SYS_RESOURCE may not lower a process's out-of-memory score, and then no sandbox starts.
_CONTAINERD = """\
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
{cdi}  stream_server_address = "{node.address}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
"""

# Version 1.7 has it off by default. A container's GPU comes from the specification that the device plugin writes.
_CDI = """\
  enable_cdi = true
  cdi_spec_dirs = ["/run/cdi"]
"""


def containerd_settings(node: NodeSpec) -> str:
    """Return containerd's configuration. Version 2 of its format is what 1.6, 1.7 and 2.x all read."""
    return _CONTAINERD.format(node=node, pause=PAUSE_IMAGE, cdi=_CDI if node.real else "")


def _pod_network(node: NodeSpec) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": node.bridge,
        "isGateway": True,
        # A pod may reach itself through its Service.
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(node.subnet), "gateway": str(node.address)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "1.0.0", "name": node.bridge, "plugins": [bridge]}


def _kubelet_settings(layout: Layout, node: NodeSpec, certificate: Path, key: Path) -> dict[str, object]:
    authority = str(layout.certificates / "ca.crt")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(node.address),
        "healthzBindAddress": str(node.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup(node.name)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [CONTROL.host],
        "clusterDomain": CONTROL.domain,
        "registerWithTaints": list(node.taints),
        # A lease a quarter of this old is renewed; the controller manager's patience is longer.
        "nodeLeaseDurationSeconds": 20,
        "nodeStatusUpdateFrequency": "5s",
        # The disk is this machine's, and its owner's to watch over.
        "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "shutdownGracePeriod": "0s",
    }
