"""Nodes as a cluster would show them, with the labels of GPU Feature Discovery."""

from enginesmith_operator.cluster.transport import Json

__all__ = ["gpu_node"]


def gpu_node(name: str, product: str = "NVIDIA-L4", *, driver: str = "580.95.05", labels: bool = True) -> Json:
    """A node with one GPU and GPU Feature Discovery's labels."""
    major, minor, revision = driver.split(".")
    told = {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.memory": "23034",
        "nvidia.com/gfd.timestamp": "1",
        "nvidia.com/cuda.driver-version.major": major,
        "nvidia.com/cuda.driver-version.minor": minor,
        "nvidia.com/cuda.driver-version.revision": revision,
        "nvidia.com/cuda.driver-version.full": driver,
    }
    return {
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"node-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", **(told if labels else {})},
        },
        "status": {
            "capacity": {"nvidia.com/gpu": "1"},
            "allocatable": {"nvidia.com/gpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
