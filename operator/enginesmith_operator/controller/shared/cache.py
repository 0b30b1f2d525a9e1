"""The cache of seen objects: what the watches and lists returned, compressed, with indexes to find it.

The cache keeps thousands of objects, so it keeps each one as compressed JSON, without the fields that no reconcile
reads, and decompresses it for the pass that reads it. Only the fields that find an object stay uncompressed. A string
that many objects share (a namespace, an engine's name, an owner's uid) is kept once. The result of a write by the
operator goes into the cache at once; an older version that a slow watch delivers later does not replace it.

The watches never tell of an object that was deleted while they were cut off, so `drop_ghosts` compares with a listing.
"""

import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.foreign_writers import others_fields
from enginesmith_operator.kinds import APPLIED, JOB, POD
from enginesmith_operator.objects.labels import TARGET

__all__ = ["Address", "ObjectCache", "Owner", "StoredObject"]

_K = TypeVar("_K", bound=Hashable)

_COMPRESSION: Final = 1
_NOISE: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_POD_SPEC: Final = ("nodeName",)
# A Job never changes, so no code compares its template with another.
_JOB_SPEC: Final = ("suspend",)
_POD_STATUS: Final = (
    "phase",
    "reason",
    "message",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
    "startTime",
    "podIP",
)


class Address(NamedTuple):
    """Where an object is found; namespace is empty for a kind without."""

    kind: str
    namespace: str
    name: str


class Owner(NamedTuple):
    """One owner reference."""

    kind: str
    name: str
    uid: str
    is_controller: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object as it was last seen.

    Attributes:
        version: resourceVersion.
        labels: those by which objects are found, and the target; the document has all of them.
        mark: number of the change that brought it, growing over the whole cache.
    """

    address: Address
    uid: str
    version: str
    labels: Mapping[str, str]
    owners: tuple[Owner, ...]
    mark: int
    packed: bytes

    def document(self) -> Json:
        """Return the object, the caller's own copy."""
        found: Json = json.loads(zlib.decompress(self.packed))
        return found

    @property
    def controller(self) -> Owner | None:
        """The owner that controls it."""
        return next((owner for owner in self.owners if owner.is_controller), None)


class ObjectCache:
    """Objects by address and by label; used by the event loop's thread alone."""

    def __init__(self, *, indexed_labels: tuple[str, ...]) -> None:
        self._labels = indexed_labels
        self._kept_labels = frozenset(indexed_labels) | {TARGET}
        self._objects: dict[str, dict[Address, StoredObject]] = defaultdict(dict)
        # Tuples: mostly of one, and a set of one takes five times as much.
        self._by_label: dict[tuple[str, str, str], tuple[Address, ...]] = {}
        self._mark = 0

    @property
    def mark(self) -> int:
        """The number of the last change."""
        return self._mark

    def put(self, document: Json) -> StoredObject | None:
        """Add an object; return it, or None where the cache has it or a newer one already."""
        metadata = document["metadata"]
        kind, namespace = sys.intern(document["kind"]), sys.intern(metadata.get("namespace") or "")
        address = Address(kind, namespace, sys.intern(metadata["name"]))
        known = self.find(address)
        if known is not None and known.uid == metadata["uid"] and not _is_newer(metadata["resourceVersion"], known):
            return None
        if known is not None:
            self._unlink(known)
        self._mark += 1
        found = StoredObject(
            address=address,
            uid=sys.intern(metadata["uid"]),
            version=metadata["resourceVersion"],
            labels={
                sys.intern(label): sys.intern(value)
                for label, value in (metadata.get("labels") or {}).items()
                if label in self._kept_labels
            },
            owners=_owners(metadata),
            mark=self._mark,
            packed=zlib.compress(json.dumps(_slim(document), separators=(",", ":")).encode(), _COMPRESSION),
        )
        self._objects[address.kind][address] = found
        for place in self._label_places(found):
            _add(self._by_label, place, address)
        return found

    def remove(self, address: Address, uid: str) -> StoredObject | None:
        """Forget an object; return it, or None where the cache has none or another one of that name."""
        known = self.find(address)
        if known is None or known.uid != uid:
            return None
        self._mark += 1
        self._unlink(known)
        del self._objects[address.kind][address]
        return known

    def find(self, address: Address) -> StoredObject | None:
        """Return the object at `address`."""
        return self._objects[address.kind].get(address)

    def of_kind(self, kind: str) -> Iterable[StoredObject]:
        """Return all objects of a kind."""
        return tuple(self._objects[kind].values())

    def labelled(self, namespace: str, label: str, value: str) -> tuple[StoredObject, ...]:
        """Return all objects of a namespace with this value of an indexed label, by address."""
        return self._sorted(self._by_label.get((namespace, label, value), ()))

    def count(self, kind: str) -> int:
        """Return how many objects of a kind there are."""
        return len(self._objects.get(kind, ()))

    def drop_ghosts(self, kind: str, seen: Mapping[tuple[str, str], str], *, since: int) -> tuple[StoredObject, ...]:
        """Remove objects that a complete listing did not contain, and return them.

        Args:
            kind: that was listed.
            seen: uid by namespace and name, of all pages.
            since: `mark` before the first page; what came later is not the listing's to judge.
        """
        ghosts = tuple(
            one
            for one in self.of_kind(kind)
            if one.mark <= since and seen.get((one.address.namespace, one.address.name)) != one.uid
        )
        for one in ghosts:
            self.remove(one.address, one.uid)
        return ghosts

    def _sorted(self, addresses: Iterable[Address]) -> tuple[StoredObject, ...]:
        return tuple(self._objects[one.kind][one] for one in sorted(addresses))

    def _unlink(self, known: StoredObject) -> None:
        for place in self._label_places(known):
            _discard(self._by_label, place, known.address)

    def _label_places(self, one: StoredObject) -> tuple[tuple[str, str, str], ...]:
        return tuple((one.address.namespace, label, one.labels[label]) for label in self._labels if label in one.labels)


def _is_newer(version: str, known: StoredObject) -> bool:
    """Compare resourceVersions, which are growing numbers within a kind (Kubernetes 1.35 promises it)."""
    try:
        return int(version) > int(known.version)
    except ValueError:
        return version != known.version


def _owners(metadata: Json) -> tuple[Owner, ...]:
    return tuple(
        Owner(sys.intern(one["kind"]), sys.intern(one["name"]), sys.intern(one["uid"]), bool(one.get("controller")))
        for one in metadata.get("ownerReferences") or ()
    )


def _slim(document: Json) -> Json:
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    # Others may write fields of these too; statuses say who does.
    if document["kind"] in APPLIED and (others := others_fields(document["metadata"].get("managedFields") or ())):
        metadata["managedFields"] = others
    annotations = metadata.get("annotations")
    if annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key not in _NOISE}
    found = {**document, "metadata": metadata}
    if document["kind"] == POD.kind:
        found["spec"] = _chosen(document.get("spec") or {}, _POD_SPEC)
        found["status"] = _chosen(document.get("status") or {}, _POD_STATUS)
    if document["kind"] == JOB.kind:
        found["spec"] = _chosen(document.get("spec") or {}, _JOB_SPEC)
    return found


def _chosen(part: Json, keys: tuple[str, ...]) -> Json:
    return {key: part[key] for key in keys if key in part}


def _add(index: dict[_K, tuple[Address, ...]], key: _K, address: Address) -> None:
    known = index.get(key, ())
    if address not in known:
        index[key] = (*known, address)


def _discard(index: dict[_K, tuple[Address, ...]], key: _K, address: Address) -> None:
    rest = tuple(one for one in index.get(key, ()) if one != address)
    if rest:
        index[key] = rest
    else:
        index.pop(key, None)
