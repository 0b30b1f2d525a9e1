"""How many GPUs the servers and builds of a namespace take, where an EnginePolicy limits them.

It counts what the watches have seen, and what a pass has just decided: two passes never give away the same GPU.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import Address, ObjectCache, StoredObject
from enginesmith_operator.controller.shared.policies import PolicyReader
from enginesmith_operator.kinds import AUTOSCALER, DEPLOYMENT, ENGINE_BUILD, INFERENCE_ENGINE, JOB
from enginesmith_operator.objects.labels import ENGINE
from enginesmith_operator.objects.serving_notes import read_notes
from enginesmith_operator.planning.gpu_limit import GpuLimit
from enginesmith_operator.planning.policies import strictest_gpu_limit

__all__ = ["GpuUse", "count_gpus", "has_ended", "has_job", "takes_gpu"]

_ENDED: Final = frozenset({BuildPhase.SUCCEEDED.value, BuildPhase.FAILED.value})
_BUILDS: Final = "builds"


class GpuUse:
    """What uses the GPUs of a namespace."""

    def __init__(self, cache: ObjectCache, policies: PolicyReader) -> None:
        self._cache = cache
        self._policies = policies
        self._promised: dict[Address, int] = {}

    def limit(self, namespace: str, *, without: Address) -> GpuLimit | None:
        """Return the limit with what is in use; None: there is none.

        Args:
            namespace: of the servers and builds.
            without: the InferenceEngine or EngineBuild that asks, which is not counted.
        """
        strictest = strictest_gpu_limit(self._policies.of_namespace(namespace).policies)
        if strictest is None:
            return None
        most, policy = strictest
        used = dict(sorted(self._serving(namespace, without)))
        builds = sum(self.has_gpu(one) for one in self.builds(namespace) if one.address != without)
        return GpuLimit(policy, most, used | ({_BUILDS: builds} if builds else {}))

    def promise(self, owner: Address, gpus: int) -> None:
        """Record how many GPUs a pass has assigned to an object, until the watches show it."""
        self._promised[owner] = gpus

    def _serving(self, namespace: str, without: Address) -> Iterator[tuple[str, int]]:
        objects: dict[str, list[Json]] = {}
        for kind in (DEPLOYMENT.kind, AUTOSCALER.kind):
            for one in self._cache.of_kind(kind):
                if one.address.namespace == namespace and ENGINE in one.labels:
                    objects.setdefault(one.labels[ENGINE], []).append(one.document())
        self._forget()
        promised = {owner.name: number for owner, number in self._promised.items() if _serves(owner, namespace)}
        for name in {*objects, *promised}:
            gpus = max(count_gpus(objects.get(name, ())), promised.get(name, 0))
            if gpus and Address(INFERENCE_ENGINE.kind, namespace, name) != without:
                yield f"{INFERENCE_ENGINE.kind} {name}", gpus

    def builds(self, namespace: str) -> Iterator[StoredObject]:
        """Yield the builds of a namespace that have not ended."""
        for one in self._cache.of_kind(ENGINE_BUILD.kind):
            if one.address.namespace == namespace and not has_ended(one):
                yield one

    def has_gpu(self, build: StoredObject) -> bool:
        """Whether a build has a GPU, or is about to get one."""
        return takes_gpu(build) and (build.address in self._promised or has_job(self._cache, build))

    def _forget(self) -> None:
        gone = [owner for owner in self._promised if self._cache.find(owner) is None]
        for owner in gone:
            del self._promised[owner]


def count_gpus(objects: Iterable[Json]) -> int:
    """Return how many GPUs the Deployments among objects take, at the most that their autoscalers may set."""
    every = tuple(objects)
    most = {one["metadata"]["name"]: int(one["spec"]["maxReplicas"]) for one in every if one["kind"] == AUTOSCALER.kind}
    return sum(
        max(int(one["spec"].get("replicas", 1)), most.get(one["metadata"]["name"], 0))
        for one in every
        if one["kind"] == DEPLOYMENT.kind and any(engine.resource for engine in read_notes(one).engines)
    )


def takes_gpu(build: StoredObject) -> bool:
    """Whether a build needs a GPU."""
    placement = (build.document().get("spec") or {}).get("placement") or {}
    return bool(placement.get("gpuResource"))


def has_ended(build: StoredObject) -> bool:
    """Whether a build uses no GPU any more."""
    document = build.document()
    return "deletionTimestamp" in document["metadata"] or (document.get("status") or {}).get("phase") in _ENDED


def has_job(cache: ObjectCache, build: StoredObject) -> bool:
    """Whether a build has begun."""
    job = cache.find(Address(JOB.kind, build.address.namespace, build.address.name))
    return job is not None and job.controller is not None and job.controller.uid == build.uid


def _serves(owner: Address, namespace: str) -> bool:
    return owner.kind == INFERENCE_ENGINE.kind and owner.namespace == namespace
