"""Lists all objects: once before any work, and then regularly to find changes that the watches missed.

A watch that was interrupted lists again when it reconnects, but does not report objects that were deleted meanwhile.
The sweep finds such ghosts. The first sweep completes the cache before the first reconcile, so a restart acts on
everything that exists, and not on what arrived first.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ExpiredListError, MissingObjectError, RefusedObjectError
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import ObjectCache
from enginesmith_operator.controller.watch.handlers import fields_of, labels_of
from enginesmith_operator.controller.watch.intake import Intake
from enginesmith_operator.controller.watch.nodes import NodeMemory
from enginesmith_operator.kinds import NODE, RESOURCE_SLICE, WATCHED, Resource

__all__ = ["Sweeper"]

_LOGGER: Final = logging.getLogger(__name__)
_GPU_SLICES: Final = "spec.driver=gpu.nvidia.com"
_MOST_ASKED_FOR: Final = 50
"""Objects of a kind that are asked for one by one; more are listed."""


class Sweeper:
    """Compares the cache with the cluster."""

    def __init__(
        self,
        api: Api,
        cache: ObjectCache,
        nodes: NodeMemory,
        intake: Intake,
        *,
        catalog: str,
        namespaces: Iterable[str] = (),
    ) -> None:
        self._api = api
        self._cache = cache
        self._nodes = nodes
        self._intake = intake
        self._catalog = catalog
        self._namespaces = tuple(namespaces)

    async def sweep(self) -> None:
        """List every kind and take in what is there and what is not there any more.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: a listing failed; what was seen until then is kept.
        """
        await self._read_slices()
        for resource in WATCHED:
            try:
                await self._sweep(resource)
            except ExpiredListError:
                # An incomplete listing does not prove that an object is gone; the next sweep follows soon.
                _LOGGER.warning("the listing of %s was not finished", resource.plural)

    async def drop_unlisted(self, listed: AbstractSet[str], *, since: int) -> None:
        """Remove objects that the first sweep saw, that the watches' own listings lack, and that no longer exist.

        Args:
            listed: uids of the objects that the watches listed.
            since: the cache's mark right after the sweep; a watch delivered what came later.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: an object cannot be read.
        """
        for resource in WATCHED:
            unlisted = [
                one for one in self._cache.of_kind(resource.kind) if one.mark <= since and one.uid not in listed
            ]
            if len(unlisted) > _MOST_ASKED_FOR:
                await self._sweep(resource)
                continue
            for one in unlisted:
                live = await self._api.get(resource, one.address.namespace, one.address.name)
                gone = live is None or live["metadata"]["uid"] != one.uid
                if gone and self._cache.remove(one.address, one.uid) is not None:
                    self._intake.wake_for(one)
        for name, uid in self._nodes.uids().items():
            if uid not in listed and await self._api.get(NODE, "", name) is None and self._nodes.forget(name, uid):
                self._intake.wake_all()

    async def _read_slices(self) -> None:
        """Learn which nodes' GPUs dynamic resource allocation hands out, before the nodes are looked at.

        It makes a refusal's words clearer and decides nothing, so no watch is kept, and a cluster without this API or
        a role without the right costs the words alone.
        """
        pages = self._api.list_pages(RESOURCE_SLICE, fields=_GPU_SLICES)
        try:
            found = [one async for page in pages for one in page]
        except (MissingObjectError, RefusedObjectError, ExpiredListError) as error:
            _LOGGER.debug("ResourceSlices cannot be read: %s", error)
            found = []
        self._nodes.know_slices(found)

    async def _list(self, resource: Resource) -> AsyncIterator[Json]:
        labels, fields = labels_of(resource), fields_of(resource, self._catalog)
        for namespace in (resource.is_namespaced and self._namespaces) or (None,):
            async for page in self._api.list_pages(resource, namespace=namespace, labels=labels, fields=fields):
                for document in page:
                    yield document

    async def _sweep(self, resource: Resource) -> None:
        since = self._cache.mark
        seen: dict[tuple[str, str], str] = {}
        known_nodes = self._nodes.uids()
        async for document in self._list(resource):
            metadata = document["metadata"]
            seen[metadata.get("namespace") or "", metadata["name"]] = metadata["uid"]
            self._intake.take({"kind": resource.kind, "apiVersion": resource.api_version} | document, False)
        if resource == NODE:
            for name, uid in known_nodes.items():
                if seen.get(("", name)) != uid and self._nodes.forget(name, uid):
                    self._intake.wake_all()
            return
        for ghost in self._cache.drop_ghosts(resource.kind, seen, since=since):
            self._intake.wake_for(ghost)
