"""Owner references: deleting an InferenceEngine deletes all that was made for it, with the operator up or down."""

from typing import Any

from enginesmith_operator.api.engine_build import EngineBuild
from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["controller_reference", "owner_reference"]


def controller_reference(owner: InferenceEngine | EngineBuild) -> dict[str, Any]:
    """Return the reference of an object that has this one owner.

    `blockOwnerDeletion` takes a right on the owner's finalizers where OwnerReferencesPermissionEnforcement is on; the
    operator has it.
    """
    return owner_reference(owner) | {"controller": True, "blockOwnerDeletion": True}


def owner_reference(owner: InferenceEngine | EngineBuild) -> dict[str, Any]:
    """Return the reference of an object that may have several owners: it is deleted with the last of them."""
    if owner.metadata.uid is None:
        raise ValueError(f"{owner.kind} {owner.metadata.name} is no object of a cluster: it has no uid")
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
    }
