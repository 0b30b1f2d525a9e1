"""Decides which builds of a namespace may start if an EnginePolicy limits builds or GPUs."""

from enginesmith_operator.controller.shared.cache import Address, ObjectCache, StoredObject
from enginesmith_operator.controller.shared.gpu_use import GpuUse, has_ended, has_job, takes_gpu
from enginesmith_operator.controller.shared.policies import PolicyReader
from enginesmith_operator.kinds import ENGINE_BUILD
from enginesmith_operator.planning.gpu_limit import POLICY_GPUS
from enginesmith_operator.planning.rollout_state import Obstacle

__all__ = ["BuildTurns"]


class BuildTurns:
    """The order of builds: the oldest first, so that two passes never start builds for the same free place."""

    def __init__(self, cache: ObjectCache, policies: PolicyReader, gpus: GpuUse) -> None:
        self._cache = cache
        self._policies = policies
        self._gpus = gpus

    def held_back(self, namespace: str, name: str) -> Obstacle | None:
        """Return why a build without a Job may not begin yet; None: it may."""
        queued = self._queued(namespace, name)
        if queued:
            return Obstacle(reason="PolicyQueue", message=queued)
        lacking = self._lacks_gpu(Address(ENGINE_BUILD.kind, namespace, name))
        return Obstacle(reason=POLICY_GPUS, message=lacking) if lacking else None

    def _lacks_gpu(self, address: Address) -> str:
        """Return what uses the GPUs; a build that gets one keeps it until it ends."""
        build = self._cache.find(address)
        limit = None if build is None else self._gpus.limit(address.namespace, without=address)
        if build is None or limit is None or not takes_gpu(build):
            return ""
        earlier = sum(
            takes_gpu(other) and not self._gpus.has_gpu(other) and _turn(other) < _turn(build)
            for other in self._gpus.builds(address.namespace)
        )
        if limit.left <= earlier:
            return limit.sentence(address.namespace)
        self._gpus.promise(address, 1)
        return ""

    def _queued(self, namespace: str, name: str) -> str:
        limits = [
            (most, one.name)
            for one in self._policies.of_namespace(namespace).policies
            if (most := one.spec.limits.concurrent_builds) is not None
        ]
        if not limits:
            return ""
        most, policy = min(limits)
        begun = earlier = 0
        me = self._cache.find(Address(ENGINE_BUILD.kind, namespace, name))
        for other in self._cache.of_kind(ENGINE_BUILD.kind):
            if other.address.namespace != namespace or has_ended(other):
                continue
            has_begun = has_job(self._cache, other)
            begun += has_begun
            earlier += me is not None and not has_begun and _turn(other) < _turn(me)
        if begun + earlier < most:
            return ""
        builds = "1 build" if most == 1 else f"{most} builds"
        return f"EnginePolicy {policy} allows {builds} at a time in namespace {namespace} (running: {begun})"


def _turn(build: StoredObject) -> tuple[str, str]:
    return str(build.document()["metadata"].get("creationTimestamp") or ""), build.address.name
