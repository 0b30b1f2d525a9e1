"""The nodes with a kubelet: what they are called, what hardware they have or claim and who is kept away."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

__all__ = ["NODES", "NodeSpec", "nodes_with_real_gpus"]


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """A node.

    Attributes:
        name: of the Node object.
        bridge: of its pods; a name of at most 15 letters.
        subnet: of its pods; the first address is the node's own.
        taints: that it registers with.
        gpus: devices by resource: identifiers that `fake_device_plugin` offers, or device files where they are real.
        real: whether the GPUs are those of this machine.
    """

    name: str
    bridge: str
    subnet: IPv4Network
    taints: tuple[dict[str, str], ...] = ()
    gpus: dict[str, tuple[str, ...]] = field(default_factory=dict)
    real: bool = False

    @property
    def address(self) -> IPv4Address:
        """The node's own address: kubelet listens there."""
        return self.subnet[1]

    @property
    def labels(self) -> Path:
        """A Node document with what GPU Feature Discovery and the platform say of it; may not exist."""
        return Path(__file__).parent / "data" / "nodes" / f"{self.name}.yaml"


_TAINT: Final = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
# The driver's own library and the one that NVIDIA's programs for nodes ask; both come with a packaged driver.
_DRIVER: Final = ("libcuda.so.1", "libnvidia-ml.so.1")
_LIBRARIES: Final = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")


def nodes_with_real_gpus(root: Path = Path("/")) -> tuple[NodeSpec, ...]:
    """Return a node with this machine's NVIDIA GPUs; none without device files or without the driver's libraries."""
    devices = sorted(str(path) for path in (root / "dev").glob("nvidia[0-9]*"))
    folders = [root / folder for folder in _LIBRARIES]
    if not devices or not any(all((folder / name).exists() for name in _DRIVER) for folder in folders):
        return ()
    return (
        NodeSpec(
            name="gpu-real",
            bridge="es-real",
            subnet=IPv4Network("10.244.4.0/24"),
            taints=(_TAINT,),
            gpus={"nvidia.com/gpu": tuple(devices)},
            real=True,
        ),
    )


NODES: Final = (
    NodeSpec(name="cpu", bridge="es-cpu", subnet=IPv4Network("10.244.1.0/24")),
    # Two cards: one whole, one in MIG slices. Tainted, as managed node pools are.
    NodeSpec(
        name="gpu-a100",
        bridge="es-a100",
        subnet=IPv4Network("10.244.2.0/24"),
        taints=(_TAINT,),
        gpus={
            "nvidia.com/gpu": ("GPU-a1000000-0000-4000-8000-000000000000",),
            "nvidia.com/mig-1g.10gb": (
                "MIG-a1000000-0000-4000-8000-000000000001",
                "MIG-a1000000-0000-4000-8000-000000000002",
            ),
            "nvidia.com/mig-2g.20gb": ("MIG-a1000000-0000-4000-8000-000000000003",),
            "nvidia.com/mig-3g.40gb": ("MIG-a1000000-0000-4000-8000-000000000004",),
        },
    ),
    # Not tainted, as in clusters that were set up by hand.
    NodeSpec(
        name="gpu-l4",
        bridge="es-l4",
        subnet=IPv4Network("10.244.3.0/24"),
        gpus={
            "nvidia.com/gpu": (
                "GPU-14000000-0000-4000-8000-000000000000",
                "GPU-14000000-0000-4000-8000-000000000001",
            ),
        },
    ),
    *nodes_with_real_gpus(),
)
