"""How many of a target's replicas an EnginePolicy's limit of GPUs lets run. Pure.

What runs is never stopped: a lower limit only keeps more from starting.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.planning.policies import largest_replicas
from enginesmith_operator.planning.rollout_state import RolloutDecision

__all__ = ["POLICY_GPUS", "GpuAsk", "GpuLimit", "allot", "say_held", "with_replicas"]

POLICY_GPUS: Final = "PolicyGpus"
"""Reason of what waits because a namespace has as many GPUs as a policy allows."""
_SHOWN: Final = 8


class GpuLimit(NamedTuple):
    """The strictest limit of a namespace's policies.

    Attributes:
        policy: name of the EnginePolicy.
        gpus: that it allows.
        used: GPUs that others in the namespace take, by what takes them: "InferenceEngine ocr", "builds".
    """

    policy: str
    gpus: int
    used: Mapping[str, int]

    @property
    def left(self) -> int:
        """Return how many the others leave; not below 0."""
        return max(self.gpus - sum(self.used.values()), 0)

    def sentence(self, namespace: str, own: int = 0) -> str:
        """Return who has the GPUs; `own`: how many the engine that asks has already."""
        shares = [f"{who} {number}" for who, number in self.used.items() if number]
        more = [f"{len(shares) - _SHOWN} more"] if len(shares) > _SHOWN else []
        mine = [f"this InferenceEngine {own}"] if own else []
        taken = ", ".join([*mine, *shares[:_SHOWN], *more]) or "none"
        gpus = "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"
        return f"EnginePolicy {self.policy} allows {gpus} in namespace {namespace} (in use: {taken})"


class GpuAsk(NamedTuple):
    """What one target asks for.

    Attributes:
        wanted: its largest number of replicas; 0 while it sleeps.
        current: replicas that its Deployment has.
    """

    wanted: int
    current: int


def allot(asks: Iterable[GpuAsk], left: int) -> tuple[int, ...]:
    """Return how many replicas each target may have: first those that there are, then more, in the targets' order."""
    every = tuple(asks)
    given = [min(one.wanted, one.current) for one in every]
    room = max(left - sum(given), 0)
    for number, one in enumerate(every):
        more = min(one.wanted - given[number], room)
        given[number] += more
        room -= more
    return tuple(given)


def with_replicas(target: TargetSpec, granted: int) -> TargetSpec:
    """Return a target with at most so many replicas."""
    if granted >= largest_replicas(target):
        return target
    bounds = target.autoscaling
    if bounds is None or granted == 0:
        return target.model_copy(update={"autoscaling": None, "replicas": granted})
    fewer = {"min_replicas": min(bounds.min_replicas, granted), "max_replicas": granted}
    return target.model_copy(update={"autoscaling": bounds.model_copy(update=fewer)})


def say_held(decided: RolloutDecision, held: str) -> RolloutDecision:
    """Return a decision whose text says what keeps replicas from starting, where it says nothing worse."""
    if not held:
        return decided
    if decided.reason == "NoReplicas":
        told = {"phase": TargetPhase.WAITING_FOR_GPU, "reason": POLICY_GPUS, "message": held}
    elif decided.reason == "Serving":
        told = {"reason": POLICY_GPUS, "message": f"{decided.message}; {held}"}
    else:
        return decided
    return decided.model_copy(update=told)
