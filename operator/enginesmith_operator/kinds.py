"""The Kubernetes kinds that the operator touches: one validated row for each, in the order of `KINDS`.

What the operator does with a kind is said here and nowhere else. The watches and their selectors (`handlers`), what an
event wakes (`intake`), which children are compared and deleted (`gather`, `decide`, `cache`, `adoption`), and the
rules of the chart's ClusterRole (`hack/generate-chart`) are derived from the rows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = [
    "APPLIED",
    "AUTOSCALER",
    "CONFIG_MAP",
    "DEPLOYMENT",
    "DISRUPTION_BUDGET",
    "ENGINE_BUILD",
    "ENGINE_POLICY",
    "EVENT",
    "INFERENCE_ENGINE",
    "JOB",
    "KINDS",
    "LEASE",
    "NAMESPACE",
    "NODE",
    "POD",
    "REGISTER",
    "RESOURCE_SLICE",
    "SERVICE",
    "VOLUME_CLAIM",
    "WATCHED",
    "Grant",
    "Resource",
    "Wakes",
    "Watch",
    "Writes",
    "index_kinds",
    "resource_of",
]

_NAME: Final = re.compile(r"[A-Z][A-Za-z]+")
_PLURAL: Final = re.compile(r"[a-z]+")
_VERSION: Final = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")


class Watch(StrEnum):
    """Which objects of a kind are watched."""

    ALL = "all"
    LABELLED = "labelled"
    """Those with the operator's own label."""
    CATALOG = "catalog"
    """The toolchain catalog's ConfigMap, by its name."""


class Wakes(StrEnum):
    """What an event of a kind puts into the queue, besides the owners of the object."""

    OWNERS = "owners"
    """Nothing else."""
    ITSELF = "itself"
    """The object: it has a reconcile."""
    ENGINE_OF_POD = "engine of pod"
    """The InferenceEngine or EngineBuild that the pod's labels or its Job name."""
    ENGINES = "engines"
    """Every InferenceEngine."""
    ENGINES_OF_NAMESPACE = "engines of namespace"
    """Every InferenceEngine of the object's namespace, or of the namespace that the object is."""


class Writes(StrEnum):
    """How the operator writes the objects that it owns."""

    CREATED = "created"
    """Once; they never change."""
    APPLIED = "applied"
    """By server-side apply, again whenever they differ; deleted when no target wants them."""


class Grant(NamedTuple):
    """A right on a kind that follows neither from its watch nor from its writes.

    Attributes:
        verbs: as RBAC spells them.
        subresource: part of the object; empty for the object itself.
        why: comment above the rule.
    """

    verbs: tuple[str, ...]
    subresource: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One kind.

    Attributes:
        group: API group; empty for the core group.
        kind: name in documents.
        plural: name in URLs and RBAC rules.
        watch: which objects are watched; None: none are.
        wakes: what an event puts into the queue.
        writes: how the operator writes the objects that it owns; None: it owns none.
        grants: rights that follow neither from `watch` nor from `writes`.
        in_own_namespace: whether the operator touches only objects of its own namespace (a Role, not a ClusterRole).
    """

    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool = True
    watch: Watch | None = None
    wakes: Wakes = Wakes.OWNERS
    writes: Writes | None = None
    grants: tuple[Grant, ...] = ()
    in_own_namespace: bool = False

    def __post_init__(self) -> None:
        """Check the row.

        Raises:
            ValueError: it contradicts itself.
        """
        spelled = (_NAME, self.kind), (_PLURAL, self.plural), (_VERSION, self.version)
        for pattern, text in spelled:
            if not pattern.fullmatch(text):
                raise ValueError(f"{self.kind}: {text!r} does not match {pattern.pattern}")
        if self.writes is not None and self.watch not in {Watch.ALL, Watch.LABELLED}:
            raise ValueError(f"{self.kind}: objects that the operator writes are watched")
        if self.wakes is not Wakes.OWNERS and self.watch is None:
            raise ValueError(f"{self.kind}: without a watch no event wakes anything")
        if self.watch is None and not self.grants:
            raise ValueError(f"{self.kind}: the operator has no right on it")

    @property
    def api_version(self) -> str:
        """Return what an object's apiVersion says."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the URL path of an object, of a namespace's objects or of all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.is_namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)

    def rights(self) -> Iterator[Grant]:
        """Yield all that the operator may do with the kind."""
        read = ("get", "list", "watch") if self.watch is not None else ()
        written = ("create", "patch", "delete") if self.writes is not None else ()
        if read or written:
            yield Grant((*read, *written), why=_CATALOG_ONLY if self.watch is Watch.CATALOG else "")
        yield from self.grants


_CATALOG_ONLY: Final = "Of all ConfigMaps only the toolchain catalog, by its name."
_STATUS: Final = (
    Grant(("update",), "status"),
    Grant(
        ("update",),
        "finalizers",
        why="To own objects with blockOwnerDeletion where the API server asks for that right.",
    ),
)

NODE: Final = Resource(
    group="", version="v1", kind="Node", plural="nodes", is_namespaced=False, watch=Watch.ALL, wakes=Wakes.ENGINES
)
CONFIG_MAP: Final = Resource(
    group="", version="v1", kind="ConfigMap", plural="configmaps", watch=Watch.CATALOG, wakes=Wakes.ENGINES
)
NAMESPACE: Final = Resource(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    is_namespaced=False,
    watch=Watch.ALL,
    wakes=Wakes.ENGINES_OF_NAMESPACE,
)
ENGINE_POLICY: Final = Resource(
    group="enginesmith.io",
    version="v1alpha1",
    kind="EnginePolicy",
    plural="enginepolicies",
    is_namespaced=False,
    watch=Watch.ALL,
    wakes=Wakes.ENGINES,
)
VOLUME_CLAIM: Final = Resource(
    group="",
    version="v1",
    kind="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    watch=Watch.ALL,
    wakes=Wakes.ENGINES_OF_NAMESPACE,
)
JOB: Final = Resource(
    group="batch", version="v1", kind="Job", plural="jobs", watch=Watch.LABELLED, writes=Writes.CREATED
)
POD: Final = Resource(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    watch=Watch.LABELLED,
    wakes=Wakes.ENGINE_OF_POD,
    grants=(Grant(("get",), "log"),),
)
SERVICE: Final = Resource(
    group="", version="v1", kind="Service", plural="services", watch=Watch.LABELLED, writes=Writes.APPLIED
)
DISRUPTION_BUDGET: Final = Resource(
    group="policy",
    version="v1",
    kind="PodDisruptionBudget",
    plural="poddisruptionbudgets",
    watch=Watch.LABELLED,
    writes=Writes.APPLIED,
)
AUTOSCALER: Final = Resource(
    group="autoscaling",
    version="v2",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    watch=Watch.LABELLED,
    writes=Writes.APPLIED,
)
DEPLOYMENT: Final = Resource(
    group="apps", version="v1", kind="Deployment", plural="deployments", watch=Watch.LABELLED, writes=Writes.APPLIED
)
ENGINE_BUILD: Final = Resource(
    group="enginesmith.io",
    version="v1alpha1",
    kind="EngineBuild",
    plural="enginebuilds",
    watch=Watch.ALL,
    wakes=Wakes.ITSELF,
    writes=Writes.CREATED,
    grants=_STATUS,
)
INFERENCE_ENGINE: Final = Resource(
    group="enginesmith.io",
    version="v1alpha1",
    kind="InferenceEngine",
    plural="inferenceengines",
    watch=Watch.ALL,
    wakes=Wakes.ITSELF,
    grants=_STATUS,
)
RESOURCE_SLICE: Final = Resource(
    group="resource.k8s.io",
    version="v1",
    kind="ResourceSlice",
    plural="resourceslices",
    is_namespaced=False,
    grants=(Grant(("list",), why="Read now and then, to say why a node offers no GPU."),),
)
EVENT: Final = Resource(group="", version="v1", kind="Event", plural="events", grants=(Grant(("create", "list")),))
LEASE: Final = Resource(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    grants=(Grant(("get", "update", "create")),),
    in_own_namespace=True,
)
REGISTER: Final = "enginesmith-operators"
"""Name of the Lease in which the operators of a cluster register."""

KINDS: Final = (
    NODE,
    CONFIG_MAP,
    NAMESPACE,
    ENGINE_POLICY,
    VOLUME_CLAIM,
    JOB,
    POD,
    SERVICE,
    DISRUPTION_BUDGET,
    AUTOSCALER,
    DEPLOYMENT,
    ENGINE_BUILD,
    INFERENCE_ENGINE,
    RESOURCE_SLICE,
    EVENT,
    LEASE,
)
"""Every kind. Parents come after their children, so that the first pass over a parent finds what it has."""

WATCHED: Final = tuple(one for one in KINDS if one.watch is not None)
APPLIED: Final = frozenset(one.kind for one in KINDS if one.writes is Writes.APPLIED)
"""Names of the kinds that the operator generates and applies; others may write fields of them too."""


def index_kinds(rows: Iterable[Resource]) -> Mapping[str, Resource]:
    """Return rows by the name of their kind.

    Raises:
        ValueError: two rows have one name.
    """
    found: dict[str, Resource] = {}
    for row in rows:
        if found.setdefault(row.kind, row) is not row:
            raise ValueError(f"{row.kind} has two rows")
    return found


_BY_KIND: Final = index_kinds(KINDS)


def resource_of(kind: str) -> Resource:
    """Return the row of a kind.

    Raises:
        KeyError: `KINDS` has no such row; a mistake in the operator's code.
    """
    return _BY_KIND[kind]
