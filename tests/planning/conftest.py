"""Builders that planning tests share: real node dumps, real matrix, documents with what a test is about."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.load import load_documents
from enginesmith_operator.planning.hardware import NodeFacts, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject
from enginesmith_operator.planning.plan_records import Plan
from enginesmith_operator.planning.snapshot import Observed

MakeEngine = Callable[..., InferenceEngine]
MakeObserved = Callable[..., Observed]
MakeNode = Callable[..., NodeFacts]

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
DIGEST = "ab" * 32
L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
CPU = {"name": "cpu", "backend": "onnxruntime"}
CATALOG = (
    Toolchain(name="trt-8.6", backend=Backend.TENSORRT, version="8.6.1.6", cuda="12.0"),
    Toolchain(name="trt-10.9-cu12", backend=Backend.TENSORRT, version="10.9.0.34", cuda="12.8"),
    Toolchain(name="trt-10.13-cu12", backend=Backend.TENSORRT, version="10.13.3.9", cuda="12.9"),
    Toolchain(name="trt-10.13-cu13", backend=Backend.TENSORRT, version="10.13.3.9", cuda="13.0"),
    Toolchain(name="rtx", backend=Backend.TENSORRT_RTX, version="1.7.1.116", cuda="13"),
    Toolchain(name="ort", backend=Backend.ONNXRUNTIME, version="1.32.0", provider="cpu"),
)


def refused_rules(result: Plan, target: int = 0) -> list[str]:
    """Return the rules that refuse a target of a plan."""
    return [count.rule for count in result.targets[target].refusals]


@pytest.fixture(scope="session")
def node_objects() -> Mapping[str, NodeObject]:
    """The real node dumps by name."""
    documents = yaml.safe_load_all((DATA / "nodes.yaml").read_text(encoding="utf-8"))
    nodes = [NodeObject.model_validate(document) for document in documents]
    return {node.metadata.name: node for node in nodes}


@pytest.fixture(scope="session")
def nodes(node_objects: Mapping[str, NodeObject]) -> Mapping[str, NodeFacts]:
    """What the dumps say, by name."""
    return {name: read_node(node, load_label_mapping()) for name, node in node_objects.items()}


@pytest.fixture
def make_node() -> MakeNode:
    """Build a node with GPU Feature Discovery's labels for whole GPUs; a keyword changes or drops (None) a label."""

    def make(name: str, product: str = "NVIDIA-L4", *, gpus: int = 1, **labels: str | None) -> NodeFacts:
        plain: dict[str, str | None] = {
            "kubernetes.io/arch": "amd64",
            "nvidia.com/gpu.product": product,
            "nvidia.com/gpu.count": str(gpus),
            "nvidia.com/gpu.memory": "23034",
            "nvidia.com/cuda.driver-version.full": "580.95.05",
        }
        plain |= {f"nvidia.com/{key.replace('__', '-').replace('_', '.')}": value for key, value in labels.items()}
        document = {
            "metadata": {"name": name, "labels": {key: value for key, value in plain.items() if value is not None}},
            "status": {"capacity": {"nvidia.com/gpu": gpus}, "allocatable": {"nvidia.com/gpu": gpus}},
        }
        return read_node(NodeObject.model_validate(document), load_label_mapping())

    return make


@pytest.fixture
def make_engine() -> MakeEngine:
    """Build a document; keywords are fields of its spec."""

    def make(**spec: Any) -> InferenceEngine:
        document = {
            "apiVersion": "enginesmith.io/v1alpha1",
            "kind": "InferenceEngine",
            "metadata": {"name": "resnet50"},
            "spec": {"model": {"uri": "s3://models/resnet50.onnx"}} | spec,
        }
        return load_documents(yaml.safe_dump(document), where="test")[0]

    return make


@pytest.fixture
def make_observed() -> MakeObserved:
    """Build a snapshot of a cluster with the catalog; keywords are fields of it."""

    def make(*nodes: NodeFacts, **fields: Any) -> Observed:
        plain: dict[str, Any] = {"matrix": load_matrix(), "toolchains": CATALOG, "store": "/engines"}
        return Observed(nodes=nodes, **(plain | fields))

    return make


def make_facts(*dtypes: DType, shape: tuple[int, ...] = (1, 3)) -> ModelFacts:
    """Return what is known of a model with an input of each dtype: in0, in1 and so on."""
    inputs = tuple(TensorSpec(name=f"in{n}", dtype=dtype, shape=shape) for n, dtype in enumerate(dtypes))
    return ModelFacts(inputs=inputs, outputs=(), opset=17, size_bytes=1 << 20)
