"""Owner references: deleting an InferenceEngine deletes all that was made for it, with the operator up or down."""

from collections.abc import Iterable
from typing import Any

from enginesmith_operator.api.engine_build import EngineBuild
from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["controller_reference", "shared_references"]


def controller_reference(owner: InferenceEngine | EngineBuild) -> dict[str, Any]:
    """Return the reference of an object that has this one owner.

    `blockOwnerDeletion` takes a right on the owner's finalizers where OwnerReferencesPermissionEnforcement is on; the
    operator has it.
    """
    return _reference(owner) | {"controller": True, "blockOwnerDeletion": True}


def shared_references(owners: Iterable[InferenceEngine]) -> list[dict[str, Any]]:
    """Return the references of an object that several engines want; it goes with the last of them."""
    return [_reference(owner) for owner in sorted(owners, key=lambda one: one.metadata.uid or "")]


def _reference(owner: InferenceEngine | EngineBuild) -> dict[str, Any]:
    if owner.metadata.uid is None:
        raise ValueError(f"{owner.kind} {owner.metadata.name} is no object of a cluster: it has no uid")
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
    }
