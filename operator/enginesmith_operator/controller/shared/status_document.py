"""Statuses as documents: read tolerantly, and written only if they change."""

from typing import Any, TypeVar

from pydantic import ValidationError

from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.transport import Json

__all__ = ["read_status", "status_document", "write_status"]

Status = TypeVar("Status", bound=ApiModel)


def read_status(kind: type[Status], document: Json, empty: Status) -> Status:
    """Return the status of an object; `empty` where it has none, or one that cannot be read."""
    found = document.get("status")
    if not found:
        return empty
    try:
        return kind.model_validate(found, by_name=False)
    except ValidationError:
        return empty


def status_document(status: ApiModel) -> Json:
    """Return a status without empty values: null, empty texts, lists and mappings."""
    found = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, raw in found.items() if (value := _without_nothing(raw)) not in ("", [], {})}


async def write_status(api: Api, owner: Json, status: ApiModel) -> Json | None:
    """Write a status where it differs from the one that was read; return the object, None where nothing was written.

    Raises:
        enginesmith_operator.cluster.errors.ClusterError: the write was refused, stopped or lost.
    """
    document = status_document(status)
    if document == (owner.get("status") or {}):
        return None
    return await api.replace_status(owner, document)


def _without_nothing(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: kept for key, raw in value.items() if (kept := _without_nothing(raw)) not in ("", [], {})}
    if isinstance(value, list):
        return [_without_nothing(one) for one in value]
    return value
