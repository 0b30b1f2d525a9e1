"""The table that a person reads, as golden files; UPDATE_GOLDEN=1 writes them anew."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.render import render_plan
from enginesmith_operator.planning.snapshot import Observed

MakeEngine = Callable[..., InferenceEngine]
MakeObserved = Callable[..., Observed]

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
FLEET = [
    {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}, "replicas": 2},
    {"name": "ada", "gpu": {"computeCapability": "8.9", "minMemory": "20Gi"}},
    {"name": "t4", "gpu": {"product": "NVIDIA-T4"}},
    {"name": "slice", "gpu": {"migProfile": "1g.5gb"}, "backend": "onnxruntime"},
    {"name": "cpu", "backend": "onnxruntime", "standby": True},
]
DYNAMIC = ModelFacts(
    inputs=(TensorSpec(name="images", dtype=DType.FP32, shape=(-1, 3, 224, 224), symbols=("batch", None, None, None)),),
    outputs=(),
    opset=17,
    size_bytes=1 << 20,
)


@pytest.mark.parametrize("name", ["fleet-pending", "fleet", "laptop", "profile-missing"])
def test_a_plan_reads_as_its_golden_table(
    make_engine: MakeEngine, make_observed: MakeObserved, nodes: Mapping[str, NodeFacts], name: str
) -> None:
    bare = NodeFacts(name="this machine", is_local=True, presence="none", arch="amd64")
    observed = {
        "fleet-pending": make_observed(*nodes.values()),
        "fleet": make_observed(*nodes.values(), source_digest="ab" * 32),
        "laptop": make_observed(bare, local=True, source_digest="ab" * 32),
        "profile-missing": make_observed(bare, local=True, model_facts=DYNAMIC),
    }[name]
    spec = {"targets": FLEET, "precision": "fp16"} if name.startswith("fleet") else {}

    table = render_plan(plan(make_engine(**spec), observed, NOW))

    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(table, encoding="utf-8")
    assert table == golden.read_text(encoding="utf-8")
