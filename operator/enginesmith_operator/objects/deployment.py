"""The Deployment of one target: pods that take the engine of the GPU they find themselves on, and serve it.

    init `pull`      looks at the GPU, copies that engine into an emptyDir, checks its digest
    `server`         loads and verifies it, then says SERVING; the kubelet asks on a plaintext port of its own

Startup and readiness ask for the model, so Ready means that an inference succeeded; liveness asks for the process.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import ceil
from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.pull_request import SERVE_REQUEST_FILE
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.kinds import DEPLOYMENT
from enginesmith_operator.objects.labels import (
    INPUTS,
    NOTES,
    TEMPLATE,
    Component,
    object_labels,
    target_selector,
)
from enginesmith_operator.objects.names import short_key, target_name
from enginesmith_operator.objects.owners import controller_reference
from enginesmith_operator.objects.placement import (
    lost_node_tolerations,
    node_affinity,
    pin_annotations,
    spread,
    tolerations,
)
from enginesmith_operator.objects.pod_rules import DEFAULT_RULES, PodRules, engine_keys_variable
from enginesmith_operator.objects.pods import (
    JsonObject,
    addresses_variable,
    allowed_plugins_variable,
    container,
    plain_resources,
    pod_spec,
    request_variable,
    resources_of,
    secret_volume,
    template_hash,
)
from enginesmith_operator.objects.serving_notes import ServingNotes, read_notes
from enginesmith_operator.objects.serving_pods import (
    ENGINES_MOUNT,
    GRPC_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    METRICS_PORT,
    ServingPods,
)
from enginesmith_operator.objects.stores import (
    store_environment,
    store_mounts,
    store_volumes,
)
from enginesmith_operator.planning.rollout_state import Strategy

__all__ = ["PULL_CONTAINER", "SERVER_CONTAINER", "deployment", "keep_template"]

PULL_CONTAINER: Final = "pull"
SERVER_CONTAINER: Final = "server"
_PULL_MODULE: Final = "enginesmith_runtime.pull"
_SERVER_MODULE: Final = "enginesmith_runtime.server"
_REQUESTS: Final = {"cpu": "100m", "memory": "256Mi"}
_ENGINES_VOLUME: Final = "engines"
_ENGINES_LIMIT: Final = "32Gi"
_GRACE_MARGIN_SECONDS: Final = 10
_STARTUP_SECONDS: Final = 3600
_STARTUP_PROBES: Final = 300
_STARTUP_PROBE_SECONDS: Final = 60
"""The server answers this probe when it serves: each answer before that would be a Warning event of a healthy pod."""
_OLD_REVISIONS: Final = 3


def deployment(
    engine: InferenceEngine,
    pods: ServingPods,
    *,
    notes: ServingNotes,
    replicas: int | None,
    strategy: Strategy = Strategy.SURGE,
    rules: PodRules = DEFAULT_RULES,
) -> dict[str, Any]:
    """Return the object to apply.

    Args:
        engine: that owns it, as the cluster has it.
        pods: what it runs.
        notes: what it remembers.
        replicas: None: an autoscaler owns the number, and has set it.
        strategy: how new pods replace old ones; no reason to restart any.
        rules: of the operator's configuration; no reason to restart any.
    """
    key = _key_label(pods.engine_keys)
    labels = object_labels(pods.engine, Component.SERVER, target=pods.target, key=key)
    spec = _pod(pods, f"{engine.metadata.namespace}/{pods.engine}", _pull(pods, rules))
    annotations = pin_annotations(pods.pins)
    described = {"annotations": annotations} if annotations else {}
    digest = template_hash({"metadata": {"labels": labels | {TEMPLATE: ""}, **described}, "spec": spec})
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {
            "name": target_name(pods.engine, pods.target),
            "namespace": engine.metadata.namespace,
            "labels": labels,
            "annotations": {
                INPUTS: pods.inputs_hash(),
                TEMPLATE: digest,
                NOTES: notes.to_json().decode(),
            },
            "ownerReferences": [controller_reference(engine)],
        },
        "spec": ({} if replicas is None else {"replicas": replicas})
        | {
            "selector": {"matchLabels": target_selector(pods.engine, pods.target)},
            "strategy": _rolling_update(strategy),
            # Loading and warming up may take long; the operator judges a rollout by its pods, not by this clock.
            "progressDeadlineSeconds": _STARTUP_SECONDS,
            "revisionHistoryLimit": _OLD_REVISIONS,
            "template": {"metadata": {"labels": labels | {TEMPLATE: digest}, **described}, "spec": spec},
        },
    }


def keep_template(desired: dict[str, Any], live: Mapping[str, Any], must_avoid: Iterable[str] = ()) -> dict[str, Any]:
    """Return `desired` with the template that runs, where there is no reason to restart a server.

    The template that runs stays where it was made of the same inputs by another release of the operator. One that was
    made by this release and was changed by hand is repaired.

    Args:
        desired: of `deployment`.
        live: the object as the cluster has it.
        must_avoid: nodes that refused an engine: a template that still allows one of them goes.
    """
    noted = live.get("metadata", {}).get("annotations") or {}
    wanted = desired["metadata"]["annotations"]
    if noted.get(INPUTS) != wanted[INPUTS] or noted.get(TEMPLATE) in {None, wanted[TEMPLATE]}:
        return desired
    running, told = read_notes(live), read_notes(desired)
    if not frozenset(must_avoid) <= frozenset(running.avoid_nodes):
        return desired
    notes = told.model_copy(update={"avoid_nodes": running.avoid_nodes})
    kept = {TEMPLATE: noted[TEMPLATE], NOTES: notes.to_json().decode()}
    metadata = desired["metadata"] | {"annotations": wanted | kept}
    return desired | {"metadata": metadata, "spec": desired["spec"] | {"template": live["spec"]["template"]}}


def _pod(pods: ServingPods, served: str, pull: JsonObject) -> JsonObject:
    template, server = pods.template, pods.pull.server
    made = pod_spec(
        init_containers=[pull],
        containers=[_server(pods, served)],
        volumes=[
            {"name": _ENGINES_VOLUME, "emptyDir": {"sizeLimit": _ENGINES_LIMIT}},
            *store_volumes(pods.store),
            *(secret_volume(one.volume, one.secret) for one in pods.secrets or ()),
        ],
        affinity=node_affinity(pods.pins, pods.archs, pods.avoid_nodes),
        tolerations=[*tolerations(template.tolerations, gpu=pods.gpus > 0, archs=pods.archs), *lost_node_tolerations()],
        node_selector=template.node_selector,
        runtime_class_name=template.runtime_class_name,
        priority_class_name=template.priority_class_name,
        service_account_name=template.service_account_name,
        image_pull_secrets=template.image_pull_secrets,
    )
    grace = ceil(server.drain_delay_seconds + server.grace_seconds) + _GRACE_MARGIN_SECONDS
    spreading = spread(target_selector(pods.engine, pods.target))
    return made | {"terminationGracePeriodSeconds": grace, "topologySpreadConstraints": spreading}


def _pull(pods: ServingPods, rules: PodRules) -> JsonObject:
    gpus = pods.gpus if pods.looks_at_gpu else 0
    # No other backend loads any.
    allowed = rules.allowed_plugins if traits(pods.pull.backend).plugins else None
    return container(
        name=PULL_CONTAINER,
        image=pods.image,
        module=_PULL_MODULE,
        variables=[
            request_variable(environment.PULL_REQUEST, pods.pull),
            *_node_product(pods),
            *store_environment(pods.store),
            addresses_variable(rules.addresses),
            *allowed_plugins_variable(allowed),
            *engine_keys_variable(rules),
        ],
        added=pods.template.env,
        mounts=[_engines_mount(), *store_mounts(pods.store, read_only=True)],
        resources=resources_of(
            plain_resources(pods.template.resources), _REQUESTS, gpu_resource=pods.resource, gpus=gpus
        ),
    )


def _server(pods: ServingPods, served: str) -> JsonObject:
    ports = {"grpc": GRPC_PORT, "metrics": METRICS_PORT, "health": HEALTH_PORT}
    if pods.pull.server.http_address is not None:
        ports["http"] = HTTP_PORT
    model = pods.pull.model.name
    made = container(
        name=SERVER_CONTAINER,
        image=pods.image,
        module=_SERVER_MODULE,
        arguments=("--request", f"{ENGINES_MOUNT}/{SERVE_REQUEST_FILE}"),
        variables=[
            *_node_product(pods),
            {"name": environment.OBJECT, "value": served},
            *({"name": name, "value": value.replace("$", "$$")} for name, value in (pods.variables or {}).items()),
        ],
        added=pods.template.env,
        mounts=[
            _engines_mount(),
            *({"name": one.volume, "mountPath": one.mount, "readOnly": True} for one in pods.secrets or ()),
        ],
        resources=resources_of(pods.template.resources, _REQUESTS, gpu_resource=pods.resource, gpus=pods.gpus),
    )
    return made | {
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "startupProbe": _probe(model, period=1, failures=_STARTUP_PROBES, timeout=_STARTUP_PROBE_SECONDS),
        "readinessProbe": _probe(model, period=2, failures=2),
        "livenessProbe": _probe("", period=10, failures=3),
    }


def _node_product(pods: ServingPods) -> list[JsonObject]:
    """Return what the labels of the pod's node say of its GPU, for the pod to hold against what it finds.

    A pod whose nodes may have one of several products cannot be told: Kubernetes passes no node label on.
    """
    products = {one.product for one in pods.pull.engines if one.product is not None}
    return [{"name": environment.NODE_PRODUCT, "value": products.pop()}] if len(products) == 1 else []


def _engines_mount() -> JsonObject:
    return {"name": _ENGINES_VOLUME, "mountPath": ENGINES_MOUNT}


def _probe(service: str, *, period: int, failures: int, timeout: int = 5) -> JsonObject:
    return {
        "grpc": {"port": HEALTH_PORT, "service": service},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _rolling_update(strategy: Strategy) -> JsonObject:
    surge, unavailable = (1, 0) if strategy is Strategy.SURGE else (0, 1)
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def _key_label(keys: tuple[str, ...]) -> str:
    if len(keys) == 1:
        return short_key(keys[0])
    return short_key(sha256(" ".join(sorted(keys)).encode()).hexdigest())
