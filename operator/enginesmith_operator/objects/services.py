"""Services: one for the engine, one of it without an address for clients that balance by themselves, one a target."""

from typing import Any

from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.kinds import SERVICE
from enginesmith_operator.objects.labels import Component, engine_selector, object_labels, target_selector
from enginesmith_operator.objects.names import engine_service_name, headless_service_name, target_service_name
from enginesmith_operator.objects.owners import controller_reference
from enginesmith_operator.objects.serving_pods import GRPC_PORT, HTTP_PORT, METRICS_PORT

__all__ = ["engine_service", "headless_service", "target_service"]


def engine_service(engine: InferenceEngine) -> dict[str, Any]:
    """Return the Service of all targets: the address for clients."""
    name = engine.metadata.name
    return _service(engine, engine_service_name(name), engine_selector(name))


def headless_service(engine: InferenceEngine) -> dict[str, Any]:
    """Return the Service that resolves to the pods themselves: one connection balances nothing by itself."""
    name = engine.metadata.name
    made = _service(engine, headless_service_name(name), engine_selector(name))
    return made | {"spec": made["spec"] | {"clusterIP": "None"}}


def target_service(engine: InferenceEngine, target: str) -> dict[str, Any]:
    """Return the Service of one target."""
    name = engine.metadata.name
    return _service(engine, target_service_name(name, target), target_selector(name, target), target)


def _service(engine: InferenceEngine, name: str, selector: dict[str, str], target: str = "") -> dict[str, Any]:
    # Kubernetes has no name of its own for HTTP/2 over TLS: ALPN says it.
    grpc, http = ("kubernetes.io/h2c", "http") if engine.spec.serving.tls is None else ("https", "https")
    ports = [("grpc", GRPC_PORT, grpc), ("metrics", METRICS_PORT, "http")]
    if engine.spec.serving.http.enabled:
        ports.append(("http", HTTP_PORT, http))
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {
            "name": name,
            "namespace": engine.metadata.namespace,
            "labels": object_labels(engine.metadata.name, Component.SERVER, target=target),
            "ownerReferences": [controller_reference(engine)],
        },
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [
                {"name": title, "port": port, "targetPort": title, "protocol": "TCP", "appProtocol": protocol}
                for title, port, protocol in ports
            ],
        },
    }
