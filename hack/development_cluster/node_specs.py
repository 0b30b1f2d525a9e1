"""The nodes with a kubelet: what they are called, what hardware they claim and who is kept away."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

__all__ = ["NODES", "NodeSpec"]


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """A node.

    Attributes:
        name: of the Node object.
        bridge: of its pods; a name of at most 15 letters.
        subnet: of its pods; the first address is the node's own.
        taints: that it registers with.
        gpus: device identifiers by resource; what `fake_device_plugin` offers.
    """

    name: str
    bridge: str
    subnet: IPv4Network
    taints: tuple[dict[str, str], ...] = ()
    gpus: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def address(self) -> IPv4Address:
        """The node's own address: kubelet listens there."""
        return self.subnet[1]

    @property
    def labels(self) -> Path:
        """A Node document with what GPU Feature Discovery and the platform say of it; may not exist."""
        return Path(__file__).parent / "data" / "nodes" / f"{self.name}.yaml"


NODES: Final = (
    NodeSpec(name="cpu", bridge="es-cpu", subnet=IPv4Network("10.244.1.0/24")),
    # Two cards: one whole, one in MIG slices. Tainted, as managed node pools are.
    NodeSpec(
        name="gpu-a100",
        bridge="es-a100",
        subnet=IPv4Network("10.244.2.0/24"),
        taints=({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},),
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
)
