"""The GPUs of this machine, offered by NVIDIA's device plugin and labelled by GPU Feature Discovery."""

import re
from pathlib import Path
from typing import Final

from development_cluster import daemons
from development_cluster.commands import run
from development_cluster.errors import ClusterError
from development_cluster.files import write_json
from development_cluster.layout import Layout
from development_cluster.node_specs import NodeSpec
from development_cluster.programs import tool

__all__ = [
    "knows_cdi",
    "labels_from",
    "plugin_command",
    "plugin_settings",
    "replicas",
    "require_cdi",
    "set_replicas",
    "write_labels",
]

_RESOURCE: Final = "nvidia.com/gpu"
_CDI_SINCE: Final = (1, 7)
# Changes with every run, so that labels would never be what they were.
_NOT_KEPT: Final = frozenset({"nvidia.com/gfd.timestamp"})


def require_cdi() -> None:
    """Refuse a containerd that cannot give a device to a container by CDI.

    Raises:
        ClusterError: containerd is older than 1.7.
    """
    told = run(["containerd", "--version"])
    if not knows_cdi(told):
        version = "{}.{}".format(*_CDI_SINCE)
        raise ClusterError(
            f"this machine has a GPU, and its containerd cannot hand out devices by CDI: {told.strip()}",
            remedy=f"install containerd {version} or later (Debian 13, Ubuntu 24.04, or containerd.io of Docker)",
        )


def knows_cdi(told: str) -> bool:
    """Return whether a containerd that says this of its version knows CDI."""
    found = re.search(r"\sv?(\d+)\.(\d+)\.", told)
    return found is not None and (int(found[1]), int(found[2])) >= _CDI_SINCE


def replicas(layout: Layout, node: NodeSpec) -> int:
    """Return how many times each GPU is handed out."""
    file = _replicas_file(layout, node)
    return int(file.read_text()) if file.exists() else 1


def set_replicas(layout: Layout, node: NodeSpec, count: int) -> bool:
    """Choose how many times each GPU is handed out; return whether that was a change.

    The device plugin reads its settings once: it is stopped where it runs.
    """
    if count == replicas(layout, node):
        return False
    _replicas_file(layout, node).write_text(str(count))
    daemons.stop(layout, f"{node.name}-gpus")
    return True


def plugin_command(layout: Layout, node: NodeSpec) -> list[str | Path]:
    """Return NVIDIA's device plugin, which also writes the CDI specification that containerd reads."""
    settings = layout.settings / f"{node.name}-gpus.json"
    write_json(settings, plugin_settings(replicas(layout, node)))
    return [
        tool("nvidia-device-plugin"),
        f"--config-file={settings}",
        *("--device-discovery-strategy=nvml", "--device-list-strategy=cdi-cri"),
        *("--driver-root=/", "--driver-root-ctr-path=/", f"--nvidia-cdi-hook-path={tool('nvidia-cdi-hook')}"),
    ]


def write_labels(layout: Layout, node: NodeSpec) -> Path:
    """Ask GPU Feature Discovery about the GPUs; return a Node document with its labels.

    Raises:
        ClusterError: it found no GPU.
    """
    found = layout.nodes / f"{node.name}.features"
    log = layout.logs / f"{node.name}-features.log"
    run(
        [
            tool("gpu-feature-discovery"),
            *("--oneshot", f"--output-file={found}", "--mig-strategy=none", "--driver-root-ctr-path=/"),
        ],
        log=log,
    )
    labels = labels_from(found.read_text(), len(node.gpus[_RESOURCE]) * replicas(layout, node))
    if "nvidia.com/gpu.product" not in labels:
        raise ClusterError("GPU Feature Discovery names no product", remedy="look at nvidia-smi", log=log)
    document = layout.nodes / f"{node.name}.labels.json"
    metadata = {"name": node.name, "labels": labels}
    write_json(document, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
    return document


def plugin_settings(count: int) -> dict[str, object]:
    """Return the device plugin's settings, which hand each GPU out `count` times."""
    settings: dict[str, object] = {"version": "v1", "flags": {"migStrategy": "none"}}
    if count > 1:
        settings["sharing"] = {"timeSlicing": {"resources": [{"name": _RESOURCE, "replicas": count}]}}
    return settings


def labels_from(text: str, count: int) -> dict[str, str]:
    """Return GPU Feature Discovery's lines as labels, and those of node-feature-discovery that clusters select by.

    The count says what can be handed out. It is not labelled as shared: nothing is built on a GPU that is.
    """
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    labels = {name: value for name, value in pairs if name not in _NOT_KEPT}
    if "nvidia.com/gpu.count" in labels:
        labels["nvidia.com/gpu.count"] = str(count)
    return {"feature.node.kubernetes.io/pci-10de.present": "true"} | labels


def _replicas_file(layout: Layout, node: NodeSpec) -> Path:
    return layout.nodes / f"{node.name}.replicas"
