"""The EngineBuild of one engine that the store lacks."""

from typing import Any

from enginesmith_operator.api.engine_build import BuildPlacement, EngineBuildSpec, NodeLabel
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.kinds import ENGINE_BUILD
from enginesmith_operator.objects.jobs import JobLimits
from enginesmith_operator.objects.labels import Component, object_labels
from enginesmith_operator.objects.names import engine_build_name
from enginesmith_operator.objects.owners import owner_reference
from enginesmith_operator.objects.pods import plain_resources
from enginesmith_operator.planning.plan_records import EnginePlan

__all__ = ["engine_build"]

_MAX_AVOIDED = 64


def engine_build(
    engine: InferenceEngine,
    target: str,
    planned: EnginePlan,
    *,
    store: StoreSpec,
    limits: JobLimits,
    is_early: bool = False,
) -> dict[str, Any]:
    """Return the object. Its spec never changes: create it, and apply no more than its owner references again.

    Args:
        engine: that wants it first, as the cluster has it.
        target: of that engine.
        planned: an engine whose key is known.
        store: how the pod reaches the request's store.
        limits: of the operator's configuration.
        is_early: whether the model is still being prepared, and the builder is to wait for that.
    """
    if planned.build is None or planned.toolchain.image is None:
        raise ValueError(f"the engine of {engine.metadata.name}/{target} has no key or no image yet")
    spec = EngineBuildSpec(
        target=target,
        request=planned.build,
        image=planned.toolchain.image,
        store=store,
        source_secret=engine.spec.model.secret_ref if planned.build.options.plugins else None,
        placement=_placement(engine, planned, limits),
        backoff_limit=limits.backoff_limit,
        ttl_seconds_after_finished=limits.ttl_seconds,
        awaits_preparation=is_early or None,
    )
    key = planned.build.engine_key
    return {
        "apiVersion": ENGINE_BUILD.api_version,
        "kind": ENGINE_BUILD.kind,
        "metadata": {
            "name": engine_build_name(engine.metadata.name, target, key),
            "namespace": engine.metadata.namespace,
            "labels": object_labels(engine.metadata.name, Component.BUILD, target=target, key=key),
            "ownerReferences": [owner_reference(engine)],
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def _placement(engine: InferenceEngine, planned: EnginePlan, limits: JobLimits) -> BuildPlacement:
    build, template = engine.spec.build, engine.spec.pod_template
    on_gpu = bool(planned.build_nodes) and planned.resource is not None
    avoided = planned.build_avoids if on_gpu else ()
    own = build.resources
    return BuildPlacement(
        pins=tuple(
            NodeLabel(label=one.label, value=one.value, also={more.label: more.value for more in one.also})
            for one in planned.build_pins
        )
        if on_gpu
        else (),
        arch=planned.hardware.arch,
        node_selector=template.node_selector,
        avoid_nodes=tuple(dict.fromkeys(avoided))[:_MAX_AVOIDED],
        gpu_resource=planned.resource if on_gpu else None,
        tolerations=template.tolerations,
        runtime_class_name=template.runtime_class_name if on_gpu else None,
        priority_class_name=build.priority_class_name,
        queue_name=build.queue_name,
        service_account_name=template.service_account_name,
        image_pull_secrets=template.image_pull_secrets,
        env=template.env,
        metric_resources=_metric_resources(engine),
        resources=(own if own != ResourceRequirements() else limits.resources).spelled(),
    )


def _metric_resources(engine: InferenceEngine) -> ResourceRequirements | None:
    container = engine.spec.verification.metric_container
    return None if container is None else plain_resources(container.resources).spelled()
