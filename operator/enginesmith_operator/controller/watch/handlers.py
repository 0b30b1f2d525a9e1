"""kopf's side of the controller: a watch for each kind, handed on as it comes. Nothing is decided or written here.

Only `on.event` is used: such handlers keep no state in annotations, add no finalizers and patch nothing. `intake`
decides what an event causes.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import kopf

from enginesmith_operator.cluster.connection import kopf_connection
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.kinds import WATCHED, Resource, Watch
from enginesmith_operator.objects.labels import MANAGED_BY, MANAGER

__all__ = ["EventSink", "build_registry", "fields_of", "kopf_settings", "labels_of"]

EventSink = Callable[[Json, bool], None]
"""Takes an object and whether it was deleted."""

_MANAGED: Final = f"{MANAGED_BY}={MANAGER}"


def labels_of(resource: Resource) -> str:
    """Return the label selector of a kind's watch; empty: every object."""
    return _MANAGED if resource.watch is Watch.LABELLED else ""


def fields_of(resource: Resource, catalog: str) -> str:
    """Return the field selector of a kind's watch: RBAC allows one ConfigMap, the catalog; empty: every object."""
    return f"metadata.name={catalog}" if resource.watch is Watch.CATALOG else ""


def build_registry(sink: EventSink, on_listed: Callable[[str], None]) -> kopf.OperatorRegistry:
    """Return handlers that give every event to `sink`, and to `on_listed` the uids that a watch's listing has."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: object) -> kopf.ConnectionInfo:
        return await kopf_connection()

    for resource in WATCHED:
        kopf.on.event(
            group=resource.group,
            version=resource.version,
            plural=resource.plural,
            registry=registry,
            id=resource.plural,
        )(_handler(resource, sink, on_listed))
    return registry


def _handler(resource: Resource, sink: EventSink, on_listed: Callable[[str], None]) -> Callable[..., Awaitable[None]]:
    async def take(event: kopf.RawEvent, **_: object) -> None:
        if event["type"] is None:
            on_listed(event["object"]["metadata"]["uid"])
        # Items of a list come without kind and apiVersion.
        document: Json = {"kind": resource.kind, "apiVersion": resource.api_version, **event["object"]}
        sink(document, event["type"] == "DELETED")

    return take


def kopf_settings(catalog: str) -> kopf.OperatorSettings:
    """Return kopf's settings: no peering, no posting, no state of its own anywhere.

    Args:
        catalog: name of the toolchain catalog's ConfigMap.
    """
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.posting.level = logging.WARNING
    # A whole number: it goes into the URL, and the API server reads no fraction.
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10.0
    settings.watching.reconnect_backoff = 1.0
    # The watches list all kinds at once; with 500 that made the peak of the process's memory.
    settings.watching.chunk_size = 100
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = (1, 2, 4, 8, 16)
    settings.networking.enforce_retry_after = True
    settings.queueing.worker_limit = None
    # A worker per object lives this long after the object's last event; thousands of them cost memory.
    settings.queueing.idle_timeout = 0.1
    settings.queueing.exit_timeout = 5.0
    settings.execution.max_workers = 2
    settings.persistence.finalizer = "enginesmith.io/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="enginesmith.io", v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="enginesmith.io", v1=False)
    settings.process.ultimate_exiting_timeout = 25.0
    for resource in WATCHED:
        where = (resource.group, resource.version, resource.plural)
        if labels := labels_of(resource):
            settings.watching.label_selectors[where] = labels
        if fields := fields_of(resource, catalog):
            settings.watching.field_selectors[where] = fields
    return settings
