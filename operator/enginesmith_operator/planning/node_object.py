"""A Kubernetes Node with just what planning reads; the parse boundary for node documents.

Nodes come from the API server or from a file that a person saved with `kubectl get nodes -o yaml`, so numbers that
YAML read as such (`rev: 8`) and empty values are accepted as the strings that the API would have given.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = ["NodeCondition", "NodeInfo", "NodeMeta", "NodeObject", "NodeSpec", "NodeStatus", "Taint"]


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


class NodeObject(_Part):
    """One node."""

    metadata: NodeMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def is_ready(self) -> bool:
        """Whether kubelet reports; a node without a Ready condition (a file, a test) counts as ready."""
        return all(condition.status == "True" for condition in self.status.conditions if condition.type == "Ready")
