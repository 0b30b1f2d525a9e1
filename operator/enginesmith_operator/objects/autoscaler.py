"""The HorizontalPodAutoscaler of one target, where its spec names a metric; otherwise users can add their own."""

from typing import Any

from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.quantities import spell_quantity
from enginesmith_operator.api.targets import AutoscalingSpec, TargetSpec
from enginesmith_operator.kinds import AUTOSCALER, DEPLOYMENT
from enginesmith_operator.objects.labels import Component, object_labels
from enginesmith_operator.objects.names import target_name
from enginesmith_operator.objects.owners import controller_reference
from enginesmith_operator.objects.pods import JsonObject

__all__ = ["autoscaler", "needs_autoscaler"]


def needs_autoscaler(target: TargetSpec) -> bool:
    """Whether the spec names what to scale by."""
    return target.autoscaling is not None and bool(_metrics(target.autoscaling))


def autoscaler(engine: InferenceEngine, target: TargetSpec) -> dict[str, Any]:
    """Return the object to apply; `target` needs one."""
    if target.autoscaling is None:
        raise ValueError(f"the target {target.name} has no autoscaling")
    name, bounds = engine.metadata.name, target.autoscaling
    scaled = target_name(name, target.name)
    return {
        "apiVersion": AUTOSCALER.api_version,
        "kind": AUTOSCALER.kind,
        "metadata": {
            "name": scaled,
            "namespace": engine.metadata.namespace,
            "labels": object_labels(name, Component.SERVER, target=target.name),
            "ownerReferences": [controller_reference(engine)],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": scaled},
            # Kubernetes' own autoscaler wakes nothing that sleeps.
            "minReplicas": max(bounds.min_replicas, 1),
            "maxReplicas": bounds.max_replicas,
            "metrics": _metrics(bounds),
        },
    }


def _metrics(bounds: AutoscalingSpec) -> list[JsonObject]:
    metrics: list[JsonObject] = []
    if bounds.cpu_utilization is not None:
        target = {"type": "Utilization", "averageUtilization": bounds.cpu_utilization}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if bounds.pod_metric is not None:
        average = {"type": "AverageValue", "averageValue": spell_quantity(bounds.pod_metric.average_value)}
        metric = {"metric": {"name": bounds.pod_metric.name}, "target": average}
        metrics.append({"type": "Pods", "pods": metric})
    return metrics
