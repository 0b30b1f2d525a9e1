"""One engine's whole set of objects, made the way that the operator makes it: plan, prepare, build, serve."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_operator.api.engine_build import EngineBuild
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.api.store import PvcStore, StoreSpec
from enginesmith_operator.objects.autoscaler import autoscaler, needs_autoscaler
from enginesmith_operator.objects.build_job import build_job
from enginesmith_operator.objects.deployment import deployment
from enginesmith_operator.objects.disruption_budget import disruption_budget, needs_budget
from enginesmith_operator.objects.engine_build import engine_build
from enginesmith_operator.objects.jobs import JobLimits
from enginesmith_operator.objects.preparation_job import preparation_job
from enginesmith_operator.objects.services import engine_service, headless_service, target_service
from enginesmith_operator.objects.serving_notes import ServingNotes
from enginesmith_operator.objects.serving_pods import ServingPods, serving_pods
from enginesmith_operator.objects.stores import store_uri
from enginesmith_operator.planning.hardware import NodeFacts, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import Plan, TargetPlan
from enginesmith_operator.planning.preparation import preparation_job_request
from enginesmith_operator.planning.rollout_state import EngineState, ServableEngine, WantedEngine
from enginesmith_operator.planning.snapshot import NodeClass, Observed

Object = dict[str, Any]
MakeEngine = Callable[..., InferenceEngine]

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DIGEST = "ab" * 32
UID = "11111111-2222-3333-4444-555555555555"
BUILD_UID = "66666666-7777-8888-9999-000000000000"
TENSORRT_IMAGE = f"registry.example/enginesmith-tensorrt@sha256:{'a1' * 32}"
ONNXRUNTIME_IMAGE = f"registry.example/enginesmith-onnxruntime@sha256:{'b2' * 32}"
CATALOG = (
    Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9", cuda="12.9", image=TENSORRT_IMAGE),
    Toolchain(name="rtx", backend=Backend.TENSORRT_RTX, version="1.7.1.116", cuda="13", image=TENSORRT_IMAGE),
    Toolchain(name="ort", backend=Backend.ONNXRUNTIME, version="1.32.0", provider="cpu", image=ONNXRUNTIME_IMAGE),
)
LIMITS = JobLimits(ttl_seconds=600, timeout_seconds=900.0)
DEFAULT_STORE = StoreSpec(pvc=PvcStore(claim_name="engines"))


def gpu_node(name: str, product: str, *, gpus: int = 1, shared: bool = False) -> NodeFacts:
    """A node with GPU Feature Discovery's labels."""
    labels = {
        "kubernetes.io/arch": "amd64",
        "nvidia.com/gpu.product": f"{product}-SHARED" if shared else product,
        "nvidia.com/gpu.count": str(gpus),
        "nvidia.com/gpu.replicas": "4" if shared else "1",
        "nvidia.com/gpu.memory": "46068",
        "nvidia.com/cuda.driver-version.full": "580.95.05",
    }
    amount = {"nvidia.com/gpu": gpus * (4 if shared else 1)}
    document = {"metadata": {"name": name, "labels": labels}, "status": {"capacity": amount, "allocatable": amount}}
    return read_node(NodeObject.model_validate(document), load_label_mapping())


NODES = (
    gpu_node("ada-1", "NVIDIA-L4"),
    gpu_node("ada-2", "NVIDIA-L4", shared=True),
    gpu_node("ada-3", "NVIDIA-L40S"),
    NodeFacts(name="cpu-1", presence="none", arch="amd64"),
)
POOL = NodeClass(
    name="h100",
    selector={"pool": "h100", "cloud.example/gpu": "h100"},
    product="NVIDIA-H100-80GB-HBM3",
    driver="580.95.05",
    memory_mib=81559,
)


@pytest.fixture
def make_engine() -> MakeEngine:
    """Build a document as a cluster has it; keywords are fields of its spec."""

    def make(name: str = "resnet50", **spec: object) -> InferenceEngine:
        document = {
            "apiVersion": "enginesmith.io/v1alpha1",
            "kind": "InferenceEngine",
            "metadata": {"name": name, "namespace": "vision", "uid": UID},
            "spec": {"model": {"uri": "s3://models/resnet50.onnx"}} | spec,
        }
        return load_documents(yaml.safe_dump(document), where="test")[0]

    return make


def plan_engine(engine: InferenceEngine, **fields: Any) -> Plan:
    """Plan for the test fleet; keywords are fields of the snapshot."""
    store = store_uri(engine.spec.store or DEFAULT_STORE, engine.metadata.namespace or "")
    plain: dict[str, Any] = {"nodes": NODES, "node_classes": (POOL,), "toolchains": CATALOG, "store": store}
    return plan(engine, Observed(matrix=load_matrix(), **(plain | fields)), NOW)


def servable(target: TargetPlan) -> tuple[ServableEngine, ...]:
    """The engines of a target, as if all were stored."""
    return tuple(WantedEngine.from_plan(one, EngineState.STORED, digest="cd" * 32).servable for one in target.engines)


def pods_of(engine: InferenceEngine, target: TargetPlan, **fields: Any) -> ServingPods:
    """The pods of a target all of whose engines are stored; keywords are arguments of `serving_pods`."""
    store = engine.spec.store or DEFAULT_STORE
    plain: dict[str, Any] = {"store": store, "store_uri": store_uri(store, engine.metadata.namespace or "")}
    (spec,) = [one for one in engine.spec.targets if one.name == target.name]
    return serving_pods(engine, spec, servable(target), **(plain | fields))


def as_build(made: Object) -> EngineBuild:
    """The EngineBuild as the cluster returns it."""
    return EngineBuild.model_validate(made | {"metadata": made["metadata"] | {"uid": BUILD_UID}})


def object_set(engine: InferenceEngine) -> list[Object]:
    """Every object that an engine gets, in the order in which the operator makes them."""
    store = engine.spec.store or DEFAULT_STORE
    pending = plan_engine(engine)
    uri = store_uri(store, engine.metadata.namespace or "")
    request = preparation_job_request(pending, uri)
    made = [
        preparation_job(engine, request, image=ONNXRUNTIME_IMAGE, archs=("amd64",), store=store, limits=LIMITS),
        engine_service(engine),
        headless_service(engine),
    ]
    known = plan_engine(engine, source_digest=DIGEST, calibration_digest="ef" * 32)
    specs = {target.name: target for target in engine.spec.targets}
    for target in known.targets:
        for one in target.engines:
            build = engine_build(engine, target.name, one, store=store, limits=LIMITS)
            made += [build, build_job(as_build(build))]
        if target.deployment is None:
            continue
        serves = target.deployment.replicas if target.deployment.serves else 0
        notes = ServingNotes(engines=servable(target))
        pods = pods_of(engine, target, avoid_nodes=target.deployment.avoid_nodes)
        made.append(deployment(engine, pods, notes=notes, replicas=serves))
        made.append(target_service(engine, target.name))
        if needs_budget(specs[target.name]):
            made.append(disruption_budget(engine, target.name))
        if needs_autoscaler(specs[target.name]):
            made.append(autoscaler(engine, specs[target.name]))
    return made


def named(objects: list[Object]) -> Mapping[tuple[str, str], Object]:
    """The objects by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}
