"""A Kubernetes Node with just what planning reads; the parse boundary for node documents.

Nodes come from the API server or from a file that a person saved with `kubectl get nodes -o yaml`, so numbers that
YAML read as such (`rev: 8`) and empty values are accepted as the strings that the API would have given.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = [
    "DraDevice",
    "NodeCondition",
    "NodeInfo",
    "NodeMeta",
    "NodeObject",
    "NodeSpec",
    "NodeStatus",
    "ResourceSliceObject",
    "ResourceSliceSpec",
    "Taint",
    "count_of",
    "dra_devices_by_node",
    "memory_mib_of",
]

# Bytes of one unit of a quantity; kubelet writes memory in Ki.
_SUFFIXES: Final = {
    "": 1,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
}
_QUANTITY: Final = re.compile(r"(\d+)([A-Za-z]*)")


def count_of(quantity: str) -> int:
    """Return a count of an extended resource; Kubernetes writes 1,000 shares as `1k`. What is no count is 0."""
    found = _QUANTITY.fullmatch(quantity)
    return int(found[1]) * _SUFFIXES[found[2]] if found and found[2] in _SUFFIXES else 0


def memory_mib_of(quantity: str) -> int | None:
    """Return an amount of memory in MiB; None where there is none."""
    return count_of(quantity) >> 20 or None


def _text(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return value


_Text = Annotated[str, BeforeValidator(_text)]


class _Part(BaseModel):
    """A piece of a Kubernetes object: unknown fields are the server's business."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Taint(_Part):
    """`key=value:effect`; GPU taints come with the values `present`, `true` and none at all."""

    key: str
    value: _Text = ""
    effect: str = "NoSchedule"

    def text(self) -> str:
        """Return it as kubectl prints it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


class NodeMeta(_Part):
    """Name and labels. The annotations hold what HAMi knows of its GPUs."""

    name: str
    labels: Mapping[str, _Text] = {}
    annotations: Mapping[str, _Text] = {}


class NodeSpec(_Part):
    """`unschedulable` is a cordon."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeCondition(_Part):
    """Only `Ready` is read."""

    type: str
    status: _Text = "Unknown"


class NodeInfo(_Part):
    """What kubelet says of the machine."""

    architecture: str = ""
    operating_system: str = ""


class NodeStatus(_Part):
    """Resources as Kubernetes quantities."""

    capacity: Mapping[str, _Text] = {}
    allocatable: Mapping[str, _Text] = {}
    conditions: tuple[NodeCondition, ...] = ()
    node_info: NodeInfo = NodeInfo()


class DraDevice(_Part):
    """One device of a ResourceSlice; `driver` is the slice's."""

    name: str
    driver: str = ""


class ResourceSliceSpec(_Part):
    """What a driver for dynamic resource allocation hands out, on one node where `node_name` is set."""

    driver: str = ""
    node_name: _Text = ""
    devices: tuple[DraDevice, ...] = ()


class ResourceSliceObject(_Part):
    """One ResourceSlice (`resource.k8s.io`), which is about a node and no part of it."""

    spec: ResourceSliceSpec = ResourceSliceSpec()


class NodeObject(_Part):
    """One node.

    Attributes:
        dra_devices: of the ResourceSlices that name the node; the node itself does not list them.
    """

    metadata: NodeMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    dra_devices: tuple[DraDevice, ...] = ()

    def with_dra_devices(self, by_node: Mapping[str, tuple[DraDevice, ...]]) -> "NodeObject":
        """Return the node with its devices among those of `dra_devices_by_node`."""
        return self.model_copy(update={"dra_devices": by_node.get(self.metadata.name, ())})

    @property
    def is_ready(self) -> bool:
        """Whether kubelet reports; a node without a Ready condition (a file, a test) counts as ready."""
        return all(condition.status == "True" for condition in self.status.conditions if condition.type == "Ready")


def dra_devices_by_node(slices: Iterable[ResourceSliceObject]) -> dict[str, tuple[DraDevice, ...]]:
    """Return the devices of ResourceSlices by the node that they are on; a slice that names no node is left out."""
    found: dict[str, tuple[DraDevice, ...]] = {}
    for spec in (one.spec for one in slices if one.spec.node_name):
        devices = tuple(device.model_copy(update={"driver": spec.driver}) for device in spec.devices)
        found[spec.node_name] = (*found.get(spec.node_name, ()), *devices)
    return found
