"""The Job of an EngineBuild: the builder on exactly the hardware that the engine is for, one engine at a time."""

from collections.abc import Iterable
from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_contract.build_request import PluginLibrary
from enginesmith_contract.provenance import BuildOrigin
from enginesmith_contract.waiting_builds import PREPARATION_WAIT_SECONDS
from enginesmith_operator.api.engine_build import EngineBuild
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.kinds import JOB
from enginesmith_operator.objects.jobs import final_rule, job_spec
from enginesmith_operator.objects.labels import ENGINE, Component, object_labels
from enginesmith_operator.objects.metric_steps import (
    METRIC_ANNOTATIONS,
    METRIC_VOLUMES,
    VERDICT_CONTAINER,
    build_mounts,
    candidate_variable,
    metric_container,
    metric_rules,
    verdict_mounts,
)
from enginesmith_operator.objects.owners import controller_reference
from enginesmith_operator.objects.placement import node_affinity, pin_annotations, tolerations
from enginesmith_operator.objects.pod_rules import (
    DEFAULT_RULES,
    PodRules,
    engine_keys_variable,
    key_environment,
    key_mounts,
    key_volumes,
)
from enginesmith_operator.objects.pods import (
    JsonObject,
    addresses_variable,
    allowed_plugins_variable,
    claim_mounts,
    claim_volumes,
    claims_of,
    container,
    plain_resources,
    pod_spec,
    request_variable,
    resources_of,
    source_environment,
    source_mounts,
    source_volumes,
)
from enginesmith_operator.objects.stores import (
    claim_of_store,
    store_environment,
    store_mounts,
    store_volumes,
)
from enginesmith_operator.planning.cloud_labels import LabelPin

__all__ = ["BUILD_CONTAINER", "build_job"]

BUILD_CONTAINER: Final = "build"
QUEUE_NAME: Final = "kueue.x-k8s.io/queue-name"
_MODULE: Final = "enginesmith_runtime.build"
_REQUESTS: Final = {"cpu": "250m", "memory": "1Gi"}


def build_job(build: EngineBuild, rules: PodRules = DEFAULT_RULES) -> dict[str, Any]:
    """Return the Job. A Job never changes: create it, and do not apply it again (Kueue sets `suspend` itself).

    Args:
        build: as the cluster has it; the operator or a user made it.
        rules: of the operator's configuration.
    """
    spec, placement = build.spec, build.spec.placement
    request = spec.request
    labels = object_labels(
        build.metadata.labels.get(ENGINE, build.metadata.name),
        Component.BUILD,
        target=spec.target,
        key=request.engine_key,
    )
    claims = claims_of(library.uri for library in request.options.plugins)
    gpus = 1 if placement.gpu_resource else 0
    patience = PREPARATION_WAIT_SECONDS if spec.awaits_preparation else 0.0
    metric = request.verification.metric_container
    step = container(
        name=BUILD_CONTAINER,
        image=spec.image,
        module=_MODULE,
        variables=[
            request_variable(environment.BUILD_REQUEST, request),
            *source_environment(spec.source_secret),
            *store_environment(spec.store),
            addresses_variable(rules.addresses),
            *engine_keys_variable(rules),
            *([candidate_variable()] if metric else key_environment(rules)),
            request_variable(environment.BUILD_ORIGIN, _origin(build, rules.origin)),
            *([{"name": environment.PREPARATION_WAIT, "value": f"{patience:g}"}] if patience else []),
            *allowed_plugins_variable(_allowed(request.options.plugins, rules.allowed_plugins)),
        ],
        added=placement.env,
        mounts=[
            *source_mounts(spec.source_secret),
            *store_mounts(spec.store),
            *claim_mounts(claims),
            *(build_mounts() if metric else key_mounts(rules)),
        ],
        resources=resources_of(placement.resources, _REQUESTS, gpu_resource=placement.gpu_resource, gpus=gpus),
    )
    judges = [metric_container(metric, placement.metric_resources or ResourceRequirements())] if metric else []
    pins = [
        LabelPin(
            label=one.label,
            value=one.value,
            also=tuple(LabelPin(label=label, value=value) for label, value in sorted(one.also.items())),
        )
        for one in placement.pins
    ]
    annotations = pin_annotations(pins) | ({} if metric is None else METRIC_ANNOTATIONS)
    pod = pod_spec(
        containers=[_verdict(build, rules)] if metric else [step],
        init_containers=[step, *judges] if metric else [],
        volumes=[
            *source_volumes(spec.source_secret),
            *store_volumes(spec.store),
            *claim_volumes(claims, claim_of_store(spec.store)),
            *(METRIC_VOLUMES if metric else []),
            *key_volumes(rules),
        ],
        affinity=node_affinity(pins, (placement.arch,), placement.avoid_nodes),
        tolerations=tolerations(placement.tolerations, gpu=bool(gpus), archs=(placement.arch,)),
        node_selector=placement.node_selector,
        runtime_class_name=placement.runtime_class_name,
        priority_class_name=placement.priority_class_name,
        service_account_name=placement.service_account_name,
        image_pull_secrets=placement.image_pull_secrets,
    )
    queue = {QUEUE_NAME: placement.queue_name} if placement.queue_name else {}
    made = job_spec(
        {"metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})}, "spec": pod},
        rules=[final_rule(BUILD_CONTAINER), *([] if metric is None else metric_rules())],
        timeout_seconds=request.options.timeout_seconds + patience,
        backoff_limit=spec.backoff_limit,
        ttl_seconds=spec.ttl_seconds_after_finished,
    )
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": build.metadata.name,
            "namespace": build.metadata.namespace,
            "labels": labels | queue,
            "ownerReferences": [controller_reference(build)],
        },
        "spec": made | ({"suspend": True} if queue else {}),
    }


def _origin(build: EngineBuild, known: BuildOrigin) -> BuildOrigin:
    return known.model_copy(
        update={
            "image": build.spec.image,
            "namespace": build.metadata.namespace,
            "job": build.metadata.name,
            "engine": build.metadata.labels.get(ENGINE),
        }
    )


def _verdict(build: EngineBuild, rules: PodRules) -> JsonObject:
    """Return the container that stores the engine which the metric lets pass, or refuses it."""
    spec = build.spec
    return container(
        name=VERDICT_CONTAINER,
        image=spec.image,
        module=f"{_MODULE}.verdict",
        variables=[
            request_variable(environment.BUILD_REQUEST, spec.request),
            *store_environment(spec.store),
            addresses_variable(rules.addresses),
            *engine_keys_variable(rules),
            *key_environment(rules),
            candidate_variable(),
        ],
        added=spec.placement.env,
        mounts=[*store_mounts(spec.store), *key_mounts(rules), *verdict_mounts()],
        resources=resources_of(plain_resources(spec.placement.resources), _REQUESTS),
    )


def _allowed(plugins: Iterable[PluginLibrary], allowed: tuple[str, ...] | None) -> list[str] | None:
    """Return those of a build's libraries that may be loaded; None: it has none, or the administrator has no list."""
    wanted = [library.sha256 for library in plugins]
    return [digest for digest in wanted if digest in allowed] if wanted and allowed is not None else None
