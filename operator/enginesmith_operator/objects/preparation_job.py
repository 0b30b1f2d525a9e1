"""The Job that prepares a model: on any CPU, once for each model, profiles and precision."""

from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_contract.preparation_job import PreparationJobRequest
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.kinds import JOB
from enginesmith_operator.objects.jobs import JobLimits, final_rule, job_spec
from enginesmith_operator.objects.labels import OCCASION, TEMPLATE, Component, object_labels
from enginesmith_operator.objects.names import preparation_job_name
from enginesmith_operator.objects.owners import controller_reference
from enginesmith_operator.objects.placement import node_affinity, tolerations
from enginesmith_operator.objects.pod_rules import DEFAULT_RULES, PodRules, engine_keys_variable
from enginesmith_operator.objects.pods import (
    addresses_variable,
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
    template_hash,
)
from enginesmith_operator.objects.stores import (
    claim_of_store,
    store_environment,
    store_mounts,
    store_volumes,
)

__all__ = ["PREPARATION_CONTAINER", "preparation_job"]

PREPARATION_CONTAINER: Final = "prepare"
_MODULE: Final = "enginesmith_runtime.prepare"
_REQUESTS: Final = {"cpu": "250m", "memory": "512Mi"}


def preparation_job(
    engine: InferenceEngine,
    request: PreparationJobRequest,
    *,
    image: str,
    archs: tuple[str, ...],
    store: StoreSpec,
    limits: JobLimits,
    rules: PodRules = DEFAULT_RULES,
    occasion: str = "",
) -> dict[str, Any]:
    """Return the Job. A Job never changes: create it, and do not apply it again.

    Args:
        engine: that owns it, as the cluster has it.
        request: of the plan.
        image: that prepares, by digest.
        archs: that the image is for, as Kubernetes spells them.
        store: how the pod reaches `request.store`.
        limits: of the operator's configuration; its resources hold where `spec.build.resources` names none.
        rules: of the operator's configuration.
        occasion: tells a repeated look at the same URI from the first.
    """
    template, secret = engine.spec.pod_template, engine.spec.model.secret_ref
    own = plain_resources(engine.spec.build.resources)
    labels = object_labels(engine.metadata.name, Component.PREPARATION)
    claims = claims_of(_uris(request))
    step = container(
        name=PREPARATION_CONTAINER,
        image=image,
        module=_MODULE,
        variables=[
            request_variable(environment.PREPARATION_REQUEST, request),
            *source_environment(secret),
            *store_environment(store),
            addresses_variable(rules.addresses),
            *engine_keys_variable(rules),
        ],
        added=template.env,
        mounts=[*source_mounts(secret), *store_mounts(store), *claim_mounts(claims)],
        resources=resources_of(own if own != ResourceRequirements() else limits.resources, _REQUESTS),
    )
    pod = pod_spec(
        containers=[step],
        volumes=[*source_volumes(secret), *store_volumes(store), *claim_volumes(claims, claim_of_store(store))],
        affinity=node_affinity((), archs, ()),
        # A preparation needs no GPU, so it keeps away from the nodes that have one.
        tolerations=tolerations(template.tolerations, gpu=False, archs=archs),
        node_selector=template.node_selector,
        service_account_name=template.service_account_name,
        image_pull_secrets=template.image_pull_secrets,
    )
    return {
        "apiVersion": JOB.api_version,
        "kind": JOB.kind,
        "metadata": {
            "name": preparation_job_name(engine.metadata.name, request, occasion),
            "namespace": engine.metadata.namespace,
            "labels": labels,
            "annotations": {TEMPLATE: template_hash(_without_request(pod))}
            | ({OCCASION: occasion} if occasion else {}),
            "ownerReferences": [controller_reference(engine)],
        },
        "spec": job_spec(
            {"metadata": {"labels": labels}, "spec": pod},
            rules=[final_rule(PREPARATION_CONTAINER)],
            timeout_seconds=limits.timeout_seconds,
            backoff_limit=limits.backoff_limit,
            ttl_seconds=limits.ttl_seconds,
        ),
    }


def _without_request(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod without its request: the engines that it looks up come and go with the nodes."""
    (step,) = pod["containers"]
    told = [one for one in step["env"] if one["name"] != environment.PREPARATION_REQUEST]
    return pod | {"containers": [step | {"env": told}]}


def _uris(request: PreparationJobRequest) -> tuple[str | None, ...]:
    wanted = request.preparation
    return (
        wanted.source.uri,
        None if wanted.precision.calibration is None else wanted.precision.calibration.source,
        *(values.npz for values in wanted.verification.inputs.values()),
    )
