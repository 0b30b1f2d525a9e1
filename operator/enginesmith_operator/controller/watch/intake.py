"""Handles an event: puts the object into the cache, and the keys of objects that may have to react into the queue.

InferenceEngine, EngineBuild ──> itself, and the InferenceEngines that own it
Job, Deployment, Service, ... ──> its owners
Pod                           ──> the InferenceEngine or EngineBuild that its labels or its Job name
Node, toolchain catalog,
EnginePolicy                  ──> every InferenceEngine, in no hurry
PersistentVolumeClaim,
Namespace                     ──> every InferenceEngine of the namespace
"""

from collections.abc import Callable
from typing import Final

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import Address, ObjectCache, StoredObject
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.kinds import CONFIG_MAP, INFERENCE_ENGINE, JOB, KINDS, NODE, Wakes, resource_of
from enginesmith_operator.objects.labels import ENGINE

__all__ = ["JOB_NAME", "Intake", "Wake"]

JOB_NAME: Final = "batch.kubernetes.io/job-name"
_RECONCILED: Final = frozenset(one.kind for one in KINDS if one.wakes is Wakes.ITSELF)

Wake = Callable[[Address, bool], None]
"""Puts a key into the queue; the second argument says whether it is urgent."""


class Intake:
    """Receives objects from watches, listings and the operator's own writes."""

    def __init__(self, cache: ObjectCache, nodes: NodeMemory, catalog: Address, wake: Wake) -> None:
        self._cache = cache
        self._nodes = nodes
        self._catalog = catalog
        self._wake = wake

    def take(self, document: Json, was_deleted: bool) -> None:  # noqa: FBT001 - kopf's handlers call it by position
        """Take in one object as it was seen."""
        if document["kind"] == NODE.kind:
            self._take_node(document, was_deleted=was_deleted)
            return
        metadata = document["metadata"]
        address = Address(document["kind"], metadata.get("namespace") or "", metadata["name"])
        changed = self._cache.remove(address, metadata["uid"]) if was_deleted else self._cache.put(document)
        if changed is not None:
            self.wake_for(changed)

    def wake_for(self, changed: StoredObject) -> None:
        """Wake the objects that depend on an object that was added, changed or deleted."""
        address = changed.address
        match resource_of(address.kind).wakes:
            case Wakes.ITSELF:
                self._wake(address, True)
            case Wakes.ENGINE_OF_POD:
                self._wake_for_pod(changed)
            case Wakes.ENGINES:
                # Another namespace may have a ConfigMap of the catalog's name.
                if address.kind != CONFIG_MAP.kind or address == self._catalog:
                    self.wake_all()
            case Wakes.ENGINES_OF_NAMESPACE:
                self.wake_all(address.namespace or address.name)
            case Wakes.OWNERS:
                pass
        for owner in changed.owners:
            if owner.kind in _RECONCILED:
                self._wake(Address(owner.kind, address.namespace, owner.name), True)

    def wake_all(self, namespace: str | None = None) -> None:
        """Wake every InferenceEngine, of one namespace or of all."""
        for one in self._cache.of_kind(INFERENCE_ENGINE.kind):
            if namespace in {None, one.address.namespace}:
                self._wake(one.address, False)

    def _take_node(self, document: Json, *, was_deleted: bool) -> None:
        metadata = document["metadata"]
        if self._nodes.forget(metadata["name"], metadata["uid"]) if was_deleted else self._nodes.observe(document):
            self.wake_all()

    def _wake_for_pod(self, pod: StoredObject) -> None:
        namespace = pod.address.namespace
        name = pod.labels.get(ENGINE)
        if name is not None:
            self._wake(Address(INFERENCE_ENGINE.kind, namespace, name), True)
        job = self._cache.find(Address(JOB.kind, namespace, pod.labels.get(JOB_NAME, "")))
        for owner in job.owners if job is not None else ():
            if owner.kind in _RECONCILED:
                self._wake(Address(owner.kind, namespace, owner.name), True)
