"""What the pods of one target are made of, as one value: the input of its Deployment.

Two equal values make equal pods, and a value that is equal but for what a pod need not be restarted for has the same
hash, so that nothing but a reason restarts a server: no new release of the operator, no node that comes or goes.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Final

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.pull_request import PullRequest
from enginesmith_contract.record import Record
from enginesmith_contract.serve_request import ModelOptions, ServerOptions, TlsFiles
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.pod_template import PodTemplate
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.api.targets import GpuSpec, TargetSpec
from enginesmith_operator.objects.names import engine_service_name
from enginesmith_operator.planning.cloud_labels import LabelPin
from enginesmith_operator.planning.rollout_state import ServableEngine

__all__ = [
    "ENGINES_MOUNT",
    "GRPC_PORT",
    "HEALTH_PORT",
    "HTTP_PORT",
    "METRICS_PORT",
    "SecretFolder",
    "ServingPods",
    "serving_pods",
]

HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002
HEALTH_PORT: Final = 8003
ENGINES_MOUNT: Final = "/engines"
_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
_TLS_MOUNT: Final = "/etc/enginesmith/tls"
_CLIENT_CA_MOUNT: Final = "/etc/enginesmith/client-ca"
_TOKENS_MOUNT: Final = "/etc/enginesmith/tokens"


class SecretFolder(Record):
    """A Secret that the server reads.

    Attributes:
        volume: name of its volume.
        secret: name of the Secret.
        mount: folder with a file for each key.
    """

    volume: str
    secret: str
    mount: str


class ServingPods(Record):
    """The pods of one target.

    A field that a later release adds is None where it changes nothing, so that the hash of old pods stays.

    Attributes:
        pull: request that the init step receives.
        image: of the toolchain, by digest.
        store: how the pod reaches `pull.store`.
        resource: extended resource of the GPU; None: none.
        gpus: how many of the resource a pod asks for.
        pins: the node must have one of them.
        avoid_nodes: nodes that have such a label and will not do.
        archs: of the node.
        template: what the user adds.
        secrets: that the server reads; None: none.
        variables: of the server that the administrator sets; None: none.
    """

    pull: PullRequest
    image: str
    store: StoreSpec
    resource: str | None = None
    gpus: int = 0
    pins: tuple[LabelPin, ...] = ()
    avoid_nodes: tuple[str, ...] = ()
    archs: tuple[str, ...] = ("amd64",)
    template: PodTemplate = PodTemplate()
    secrets: tuple[SecretFolder, ...] | None = None
    variables: dict[str, str] | None = None

    @property
    def engine(self) -> str:
        """Return the name of the InferenceEngine."""
        return self.pull.model.name

    @property
    def target(self) -> str:
        """Return the target's name."""
        return self.pull.model.target

    @property
    def engine_keys(self) -> tuple[str, ...]:
        """Return the keys of the engines that the pods choose from."""
        return tuple(one.engine_key for one in self.pull.engines)

    @property
    def looks_at_gpu(self) -> bool:
        """Whether the init step has to find out which GPU the pod was given."""
        return self.gpus > 0 and (traits(self.pull.backend).runs_on_gpu or len(self.pull.engines) > 1)

    def inputs_hash(self) -> str:
        """Return a hash of all that is a reason to restart a server.

        Nodes to avoid are none, and neither is a digest that was learnt later: a key has one engine in a store.
        """
        engines = tuple(one.model_copy(update={"engine_digest": None}) for one in self.pull.engines)
        pull = self.pull.model_copy(update={"engines": engines})
        return sha256(self.model_copy(update={"pull": pull, "avoid_nodes": ()}).to_json()).hexdigest()[:20]


def serving_pods(
    engine: InferenceEngine,
    target: TargetSpec,
    engines: Iterable[ServableEngine],
    *,
    store: StoreSpec,
    store_uri: str,
    avoid_nodes: Iterable[str] = (),
    tracing: Mapping[str, str] | None = None,
) -> ServingPods:
    """Return the pods that serve `engines`.

    Args:
        engine: the document.
        target: of it.
        engines: at least one, all of one toolchain; nodes of other products get no pod.
        store: how pods reach it.
        store_uri: URI of the store that they receive.
        avoid_nodes: that have the right label and will not do.
        tracing: variables by which servers send traces; None: they send none.
    """
    ready = sorted(engines, key=lambda one: one.device)
    toolchain = ready[0].toolchain
    if toolchain.image is None:
        raise ValueError(f"the toolchain {toolchain.name} has no image")
    pins = {(pin.label, pin.value): pin for one in ready for pin in one.pins}
    serving = engine.spec.serving
    return ServingPods(
        pull=PullRequest(
            store=store_uri,
            backend=toolchain.backend,
            engines=tuple(one.engine for one in ready),
            into=ENGINES_MOUNT,
            model=ModelOptions(
                name=engine.metadata.name,
                target=target.name,
                instances=serving.instances,
                backend_options=target.backend_options,
                batching=serving.batching.options,
                queue=serving.queue.options,
                response_cache_bytes=serving.response_cache_bytes,
            ),
            server=ServerOptions(
                address=f"0.0.0.0:{GRPC_PORT}",
                metrics_address=f"0.0.0.0:{METRICS_PORT}",
                health_address=f"0.0.0.0:{HEALTH_PORT}",
                http_address=f"0.0.0.0:{HTTP_PORT}" if serving.http.enabled else None,
                drain_delay_seconds=float(serving.drain_delay_seconds),
                grace_seconds=float(serving.grace_period_seconds),
                max_message_bytes=int(serving.max_message_bytes),
                max_queued=serving.max_queued,
                max_streams=serving.changed_max_streams,
                front_ends=serving.front_ends,
                transport=serving.chosen_transport,
                tls=_tls_files(engine),
                tokens=None if serving.auth is None else _TOKENS_MOUNT,
                client_limits=None if serving.client_limits is None else serving.client_limits.limits,
            ),
        ),
        image=toolchain.image,
        store=store,
        resource=ready[0].resource,
        gpus=(target.gpu or GpuSpec()).count * (ready[0].units or 1) if ready[0].resource else 0,
        pins=tuple(pins[key] for key in sorted(pins)),
        avoid_nodes=tuple(sorted(set(avoid_nodes))),
        archs=tuple(sorted({one.engine.arch for one in ready})),
        template=engine.spec.pod_template.model_copy(
            update={"resources": engine.spec.pod_template.resources.spelled()}
        ),
        secrets=tuple(_secrets(engine)) or None,
        variables=None if tracing is None else _tracing(tracing, engine, target),
    )


def _tracing(variables: Mapping[str, str], engine: InferenceEngine, target: TargetSpec) -> dict[str, str]:
    """Return the variables with what tells this target's spans from others."""
    own = f"service.namespace={engine.metadata.namespace},enginesmith.target={target.name}"
    given = variables.get(_RESOURCE)
    return {
        **variables,
        "OTEL_SERVICE_NAME": engine.metadata.name,
        _RESOURCE: own if given is None else f"{given},{own}",
    }


def _tls_files(engine: InferenceEngine) -> TlsFiles | None:
    tls = engine.spec.serving.tls
    if tls is None:
        return None
    service = f"{engine_service_name(engine.metadata.name)}.{engine.metadata.namespace}"
    return TlsFiles(
        certificate=f"{_TLS_MOUNT}/tls.crt",
        key=f"{_TLS_MOUNT}/tls.key",
        client_ca=None if tls.client_ca_secret_name is None else f"{_CLIENT_CA_MOUNT}/ca.crt",
        names=(f"{service}.svc", f"{service}.svc.cluster.local", service, service.partition(".")[0])
        if tls.server_name is None
        else (tls.server_name,),
    )


def _secrets(engine: InferenceEngine) -> Iterator[SecretFolder]:
    tls, auth = engine.spec.serving.tls, engine.spec.serving.auth
    if tls is not None:
        yield SecretFolder(volume="tls", secret=tls.secret_name, mount=_TLS_MOUNT)
        if tls.client_ca_secret_name is not None:
            yield SecretFolder(volume="client-ca", secret=tls.client_ca_secret_name, mount=_CLIENT_CA_MOUNT)
    if auth is not None:
        yield SecretFolder(volume="tokens", secret=auth.tokens_secret_name, mount=_TOKENS_MOUNT)
