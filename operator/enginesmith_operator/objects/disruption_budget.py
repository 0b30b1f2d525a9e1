"""The PodDisruptionBudget of one target: a drained node takes one replica at a time, where others can replace it."""

from typing import Any, Final

from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.kinds import DISRUPTION_BUDGET
from enginesmith_operator.objects.labels import Component, object_labels, target_selector
from enginesmith_operator.objects.names import target_name
from enginesmith_operator.objects.owners import controller_reference

__all__ = ["disruption_budget", "needs_budget"]

_SEVERAL: Final = 2


def needs_budget(target: TargetSpec) -> bool:
    """Whether the target has replicas to keep: with a single one, a budget would only block a drain for ever."""
    fewest = target.autoscaling.min_replicas if target.autoscaling is not None else target.replicas
    return fewest >= _SEVERAL


def disruption_budget(engine: InferenceEngine, target: str, *, unavailable: int = 1) -> dict[str, Any]:
    """Return the object to apply.

    Args:
        engine: that owns it, as the cluster has it.
        target: of it.
        unavailable: how many replicas may be missing; more than one where a drain would wait for ever.
    """
    name = engine.metadata.name
    return {
        "apiVersion": DISRUPTION_BUDGET.api_version,
        "kind": DISRUPTION_BUDGET.kind,
        "metadata": {
            "name": target_name(name, target),
            "namespace": engine.metadata.namespace,
            "labels": object_labels(name, Component.SERVER, target=target),
            "ownerReferences": [controller_reference(engine)],
        },
        "spec": {
            "maxUnavailable": unavailable,
            "selector": {"matchLabels": target_selector(name, target)},
            # A pod that does not serve must not keep its node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
