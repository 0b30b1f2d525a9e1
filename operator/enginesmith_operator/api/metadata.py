"""`metadata` of a Kubernetes object. Every field is listed, so that a misspelled field is reported."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.scalars import KubernetesName, Name

__all__ = ["ObjectMetadata"]

_Items = Annotated[tuple[JsonValue, ...], Field(max_length=256)]


class ObjectMetadata(ApiModel):
    """Kubernetes' own metadata of the object.

    Attributes:
        name: Name of the engine, under which clients ask for the model.
        generate_name: Prefix for a generated name. It is refused, because clients need a name that they know in
            advance.
        namespace: Namespace of the object. If omitted, the command's own. Local mode ignores it.
        labels: Labels for selectors.
        annotations: Annotations for tools. Enginesmith does not read them.
        uid: Unique id, set by the cluster.
        resource_version: Version of the object, set by the cluster.
        generation: Number that the cluster raises with each change of the spec.
        creation_timestamp: Time of the creation, set by the cluster.
        deletion_timestamp: Time of the deletion, set by the cluster.
        deletion_grace_period_seconds: Seconds until the deletion is final, set by the cluster.
        owner_references: Objects that own this one, set by the client that creates it for them.
        finalizers: Tasks to finish before the object is deleted, set by controllers.
        managed_fields: Fields by the client that set them, set by the cluster.
        self_link: URL path of the object, set by old clusters.
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
