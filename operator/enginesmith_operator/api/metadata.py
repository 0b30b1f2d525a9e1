"""`metadata`: the part of every Kubernetes object that is not ours, with every field named, so that a typo is found."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.scalars import KubernetesName, Name

__all__ = ["ObjectMetadata"]

_Items = Annotated[tuple[JsonValue, ...], Field(max_length=256)]


class ObjectMetadata(ApiModel):
    """Kubernetes' own description of the object.

    Attributes:
        name: the engine's name; clients ask for the model under it.
        generate_name: refused here: clients need a name that they can know.
        namespace: default: the command's own; local mode ignores it.
        labels: for selectors.
        annotations: for tools; never read by Enginesmith.
        uid: set by the cluster.
        resource_version: set by the cluster.
        generation: set by the cluster; raised by each change of the spec.
        creation_timestamp: set by the cluster.
        deletion_timestamp: set by the cluster.
        deletion_grace_period_seconds: set by the cluster.
        owner_references: set by whoever creates the object on another's behalf.
        finalizers: set by controllers.
        managed_fields: set by the cluster.
        self_link: set by old clusters.
    """

    name: Name
    generate_name: str | None = None
    namespace: KubernetesName | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: _Items = ()
    finalizers: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    managed_fields: _Items = ()
    self_link: str | None = None
