"""ScatterND with a reduction loses updates in ONNX Runtime when several threads write to one element."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.manifest import Manifest
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import BuildJob, on_host
from enginesmith_runtime.engines.onnxruntime.backend import OnnxRuntimeBuilder
from enginesmith_runtime.engines.onnxruntime.engine import OnnxRuntimeLoader
from enginesmith_runtime.onnx_graphs.scatters import losing_scatters, unordered_scatters
from enginesmith_runtime.prepare.runs.reference_runs import Session

F, I64 = TensorProto.FLOAT, TensorProto.INT64
X = helper.make_tensor_value_info("x", F, ["n", 4])
AT = helper.make_tensor_value_info("at", I64, ["n", 1])
Y = helper.make_tensor_value_info("y", F, [8, 4])
INPUTS = (
    TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 4)),
    TensorSpec(name="at", dtype=DType.INT64, shape=(-1, 1)),
)
OUTPUTS = (TensorSpec(name="y", dtype=DType.FP32, shape=(8, 4)),)


class _Silent:
    """A ProgressSink that never stops a build."""

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Ignore it."""

    def step(self, name: str, step: int) -> bool:  # noqa: ARG002 - the ProgressSink's signature
        return True

    def finish(self, name: str) -> None:
        """Ignore it."""


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what every session of ONNX Runtime that is opened has as its number of threads."""
    seen: list[int] = []
    real = onnxruntime.InferenceSession

    def watched(model: Any, options: Any, **others: Any) -> Any:
        seen.append(options.intra_op_num_threads)
        return real(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    return seen


def _sum_into(reduction: str) -> onnx.NodeProto:
    return helper.make_node("ScatterND", ["zeros", "at", "x"], ["y"], name="sum", reduction=reduction)


@pytest.mark.parametrize(("reduction", "want"), [("add", 1), ("mul", 1), ("none", 4)])
def test_an_engine_that_would_lose_updates_runs_on_one_thread_and_says_so(
    write_model: Callable[..., Path],
    make_job: Callable[..., BuildJob],
    make_manifest: Callable[..., Manifest],
    threads: list[int],
    reduction: str,
    want: int,
) -> None:
    model = write_model([_sum_into(reduction)], [X, AT], [Y], zeros=np.ones((8, 4), np.float32))
    job = make_job(model, INPUTS, OUTPUTS)
    built = OnnxRuntimeBuilder().build(job, _Silent())
    assert any("node 'sum' (ScatterND, " in note for note in built.notes) is (want == 1)
    engine = OnnxRuntimeLoader().load(make_manifest(job, built), job.output, {"intraOpThreads": "4"})
    assert threads[-1] == want
    at, x = np.zeros((64, 1), np.int64), np.ones((64, 4), np.float32)
    with engine.open_instance() as instance:
        answer = on_host(instance.infer({"x": x, "at": at}, profile=0, outputs=["y"]))["y"]
    assert answer[0].tolist() == [65.0 if reduction == "add" else 1.0] * 4


def test_a_reference_session_has_the_threads_that_it_is_given(
    write_model: Callable[..., Path], threads: list[int]
) -> None:
    model = write_model([_sum_into("add")], [X, AT], [Y], zeros=np.zeros((8, 4), np.float32))
    for given in (1, 0):
        Session(str(model), threads=given)
    assert threads == [1, 0]


def test_nodes_are_found_in_branches_and_functions_too() -> None:
    inner = helper.make_graph([_sum_into("add")], "branch", [], [Y])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    function = helper.make_function(
        "own", "f", ["x", "at", "zeros", "c"], ["z"], [branch, _sum_into("none")], [helper.make_opsetid("", 18)]
    )
    other = helper.make_node("ScatterND", ["a", "b", "c"], ["d"], name="foreign", domain="own", reduction="add")
    graph = helper.make_graph([branch, other], "g", [], [])
    model = helper.make_model(graph, functions=[function])
    assert losing_scatters(model) == ("node 'sum' (ScatterND, add)",) * 4
    assert unordered_scatters(model) == ("node 'sum' (ScatterND)",)
