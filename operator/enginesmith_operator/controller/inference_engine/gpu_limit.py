"""The replicas that each target of an InferenceEngine may have where an EnginePolicy limits GPUs. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.shared.gpu_use import count_gpus
from enginesmith_operator.kinds import AUTOSCALER
from enginesmith_operator.planning.gpu_limit import GpuAsk, allot
from enginesmith_operator.planning.plan_records import Plan, TargetPlan
from enginesmith_operator.planning.policies import largest_replicas

__all__ = ["GpuShare", "grant_gpus"]


class GpuShare(NamedTuple):
    """What one target may have.

    Attributes:
        held: why it is fewer than it asks for; empty: it is not.
    """

    replicas: int
    held: str


def grant_gpus(snapshot: EngineSnapshot, plan: Plan) -> Mapping[str, GpuShare]:
    """Return the share of each target that takes GPUs; empty where no policy limits them.

    What leaves the spec is not counted: it goes when what came in its place serves.
    """
    limit = snapshot.gpus
    if limit is None:
        return {}
    pairs = zip(snapshot.engine.spec.targets, plan.targets, strict=True)
    asks = {spec.name: _ask(snapshot, spec, planned) for spec, planned in pairs if _takes_gpus(snapshot, planned)}
    namespace = snapshot.document["metadata"]["namespace"]
    sentence = limit.sentence(namespace, own=sum(one.current for one in asks.values()))
    return {
        name: GpuShare(replicas, sentence if replicas < ask.wanted else "")
        for (name, ask), replicas in zip(asks.items(), allot(asks.values(), limit.left), strict=True)
    }


def _takes_gpus(snapshot: EngineSnapshot, planned: TargetPlan) -> bool:
    """Whether a target's pods ask for GPUs: those of its plan, and those that it has."""
    live = snapshot.deployments.get(planned.name)
    resources = {one.resource for one in planned.engines}
    resources |= {one.resource for one in live.notes.engines} if live is not None else set()
    return bool(resources - {None})


def _ask(snapshot: EngineSnapshot, spec: TargetSpec, planned: TargetPlan) -> GpuAsk:
    live = snapshot.deployments.get(spec.name)
    sleeps = planned.deployment is not None and not planned.deployment.serves
    if live is None:
        return GpuAsk(0 if sleeps else largest_replicas(spec), 0)
    name = live.document["metadata"]["name"]
    bounds = snapshot.objects.get((AUTOSCALER.kind, name))
    current = count_gpus((live.document, *(() if bounds is None else (bounds,))))
    return GpuAsk(0 if sleeps else largest_replicas(spec), current)
