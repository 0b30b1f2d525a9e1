"""Facts about the nodes, with a grace period: GPU labels disappear and return, and no reconcile may act on the gap.

GPU Feature Discovery drops all its labels for about a minute at each of its restarts, a restarted kubelet hands out 0
GPUs until the device plugin has registered again, and a new node has GPUs before it has labels. So a node that loses
its product or its devices keeps the facts that it had for a grace period, and a GPU node that has no product yet is not
shown at all for the same time after it was made. Everything else (a driver, a taint, a cordon) shows at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.planning.hardware import NodeFacts, Presence, read_node
from enginesmith_operator.planning.label_mapping import LabelMapping
from enginesmith_operator.planning.node_object import (
    DraDevice,
    NodeObject,
    ResourceSliceObject,
    dra_devices_by_node,
)
from enginesmith_operator.planning.refusals import natural_order

__all__ = ["NodeMemory"]

# Kept from the previous facts, so that all other changes in the gap are visible at once.
_HARDWARE: Final = (
    "presence",
    "product",
    "product_from",
    "pin",
    "claims",
    "discovered",
    "compute_capability",
    "memory_mib",
    "driver",
    "cuda",
    "count",
    "replicas",
    "sharing_of_all",
    "mig_invalid",
    "no_mig_strategy",
    "offers",
    "capacity",
    "strangers",
    "dra",
    "vendor",
    "sign",
    "hint",
)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """One node.

    Attributes:
        shown: what plans see; None: nothing yet.
        latest: what it says of itself now.
        until: when `latest` shows if nothing else happens (seconds of the clock); None: it shows.
    """

    uid: str
    shown: NodeFacts | None
    latest: NodeFacts
    until: float | None


class NodeMemory:
    """Facts of all nodes, as plans are to see them.

    Args:
        mapping: how labels are read.
        grace_seconds: how long what vanished is believed to be there.
        clock: seconds since the epoch, to be compared with a node's age.
    """

    def __init__(self, mapping: LabelMapping, *, grace_seconds: float, clock: Callable[[], float]) -> None:
        self._mapping = mapping
        self._grace = grace_seconds
        self._clock = clock
        self._nodes: dict[str, _Known] = {}
        self._facts: tuple[NodeFacts, ...] | None = None
        self._dra_devices: Mapping[str, tuple[DraDevice, ...]] = {}

    def know_slices(self, slices: Iterable[Json]) -> None:
        """Take in all ResourceSlices; a node's facts have them from its next `observe` on."""
        self._dra_devices = dra_devices_by_node(_readable(slices))

    def observe(self, document: Json) -> bool:
        """Record a node; return whether plans see a change now. See `next_change` for later changes."""
        name, uid = document["metadata"]["name"], document["metadata"]["uid"]
        try:
            node = NodeObject.model_validate(document).with_dra_devices(self._dra_devices)
            latest = read_node(node, self._mapping)
        except ValidationError:
            # A node that cannot be read counts as a node without a GPU; its kubelet will write it again.
            latest = NodeFacts(name=name, presence=Presence.NONE, is_ready=False)
        known = self._nodes.get(name)
        before = known if known is not None and known.uid == uid else None
        after = self._judge(before, latest, document)
        self._nodes[name] = after
        return self._tell(changed=(known.shown if known else None) != after.shown)

    def forget(self, name: str, uid: str) -> bool:
        """Remove a node; return whether plans see a change now."""
        known = self._nodes.get(name)
        if known is None or known.uid != uid:
            return False
        del self._nodes[name]
        return self._tell(changed=known.shown is not None)

    def settle(self) -> bool:
        """Show facts whose grace period has ended; return whether plans see a change now."""
        now = self._clock()
        changed = False
        for name, known in self._nodes.items():
            if known.until is not None and known.until <= now:
                self._nodes[name] = _Known(uid=known.uid, shown=known.latest, latest=known.latest, until=None)
                changed = True
        return self._tell(changed=changed)

    def next_change(self) -> float | None:
        """Return in how many seconds `settle` has something to do; None: never."""
        due = min((known.until for known in self._nodes.values() if known.until is not None), default=None)
        return None if due is None else max(due - self._clock(), 0.0)

    def facts(self) -> tuple[NodeFacts, ...]:
        """Return what plans see, in natural order of names; the same tuple for as long as it is the same."""
        if self._facts is None:
            shown = [known.shown for known in self._nodes.values() if known.shown is not None]
            self._facts = tuple(sorted(shown, key=lambda facts: natural_order(facts.name)))
        return self._facts

    def uids(self) -> dict[str, str]:
        """Return the uid of every node by its name."""
        return {name: known.uid for name, known in self._nodes.items()}

    def _tell(self, *, changed: bool) -> bool:
        if changed:
            self._facts = None
        return changed

    def _judge(self, before: _Known | None, latest: NodeFacts, document: Json) -> _Known:
        uid = document["metadata"]["uid"]
        if before is not None and before.shown is not None and _has_lost(before.shown, latest):
            kept = {field: getattr(before.shown, field) for field in _HARDWARE}
            labels = {**before.shown.labels, **latest.labels}
            shown = latest.model_copy(update={**kept, "labels": labels})
            until = before.until if before.until is not None else self._clock() + self._grace
            return _Known(uid=uid, shown=shown, latest=latest, until=until)
        if before is None or before.shown is None:
            until = _made_at(document) + self._grace
            if _is_unsettled(latest) and self._clock() < until:
                return _Known(uid=uid, shown=None, latest=latest, until=until)
        return _Known(uid=uid, shown=latest, latest=latest, until=None)


def _readable(slices: Iterable[Json]) -> Iterator[ResourceSliceObject]:
    for document in slices:
        # A slice that cannot be read only makes a message less detailed.
        with suppress(ValidationError):
            yield ResourceSliceObject.model_validate(document)


def _has_lost(shown: NodeFacts, latest: NodeFacts) -> bool:
    """Whether a node shows less hardware than before: its product, its devices or its driver."""
    if shown.presence is not Presence.NVIDIA:
        return False
    return (
        (shown.product is not None and latest.product is None and not latest.claims)
        or (bool(shown.offers) and not latest.offers)
        or (shown.driver is not None and latest.driver is None)
    )


def _is_unsettled(facts: NodeFacts) -> bool:
    """Whether a new node has a GPU of which it does not say everything yet."""
    return facts.presence is Presence.NVIDIA and (facts.product is None or not facts.offers)


def _made_at(document: Json) -> float:
    text = document["metadata"].get("creationTimestamp") or "1970-01-01T00:00:00Z"
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
