"""A prepared model against the FP32 model on samples: agreement of answers, errors, values inside the models."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.verification import OutputAgreement
from enginesmith_runtime.prepare.accuracy.jobs import Measured, MeasureJob
from enginesmith_runtime.prepare.accuracy.measure import measure
from enginesmith_runtime.prepare.jobs import EventKind
from enginesmith_runtime.prepare.runs.reference_runs import save_run

_FACTS = ModelFacts(
    inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 8)),),
    outputs=(TensorSpec(name="classes", dtype=DType.FP32, shape=(-1, 5)),),
    opset=17,
    size_bytes=1,
)
_SAMPLES = 12


class _Bench:
    """A classifier of two layers with samples, and changed copies of it."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(7)
        self.folder = folder
        self.first = random.normal(size=(8, 16)).astype(np.float32)
        self.second = random.normal(size=(16, 5)).astype(np.float32)
        self.samples = tuple(str(folder / f"{number}.npz") for number in range(_SAMPLES))
        for path in self.samples:
            save_run(Path(path), {"x": random.normal(size=(2, 8)).astype(np.float32)}, {})
        self.save("fp32", [])
        self.events: list[object] = []

    def save(self, name: str, before: list[NodeProto], second: npt.NDArray[np.floating] | None = None) -> None:
        """Write a copy whose second layer has other weights, or whose hidden values go through other nodes first."""
        hidden = before[-1].output[0] if before else "active"
        weights = self.second if second is None else second
        half = weights.dtype == np.float16
        narrow, wide = ("narrow", "scores16") if half else (hidden, "scores")
        nodes = [
            helper.make_node("MatMul", ["x", "first"], ["hidden"], name="one"),
            helper.make_node("Relu", ["hidden"], ["active"], name="two"),
            *before,
            *([helper.make_node("Cast", [hidden], ["narrow"], to=TensorProto.FLOAT16)] if half else []),
            helper.make_node("MatMul", [narrow, "second"], [wide], name="three"),
            *([helper.make_node("Cast", ["scores16"], ["scores"], to=TensorProto.FLOAT)] if half else []),
            helper.make_node("Softmax", ["scores"], ["classes"], name="four", axis=1),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
            [helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["N", 5])],
            [numpy_helper.from_array(self.first, "first"), numpy_helper.from_array(weights, "second")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, self.folder / f"{name}.onnx")

    def measure(self, name: str, *, layers: int = 0) -> Measured:
        """Compare a copy with the model."""
        job = MeasureJob(
            reference=str(self.folder / "fp32.onnx"),
            model=str(self.folder / f"{name}.onnx"),
            facts=_FACTS,
            samples=self.samples,
            tolerances={"classes": 1e-3},
            layers=layers,
        )
        return measure(job, lambda kind, data: self.events.append(data) if kind is EventKind.RAN else None)


@pytest.fixture
def bench(tmp_path: Path) -> _Bench:
    """The classifier and its samples."""
    return _Bench(tmp_path)


def _only(measured: Measured) -> OutputAgreement:
    (output,) = measured.outputs
    return output


def test_a_model_equals_itself_and_its_answers_are_kept_with_the_samples(bench: _Bench) -> None:
    output = _only(bench.measure("fp32"))
    assert (output.agreement, output.sqnr_db, output.mean_relative_error) == (1.0, None, 0.0)
    assert output.answers == 2 * _SAMPLES
    assert bench.events == list(range(1, _SAMPLES + 1))
    with np.load(bench.samples[0]) as archive:
        assert sorted(archive.files) == ["input:x", "output:classes"]


def test_coarse_weights_cost_answers_and_their_layer_is_the_first_with_noise(bench: _Bench) -> None:
    bench.save("coarse", [], np.round(bench.second / 1.5) * np.float32(1.5))
    measured = bench.measure("coarse", layers=3)
    output = _only(measured)
    assert output.agreement is not None
    assert 0.3 < output.agreement < 1.0
    assert output.sqnr_db is not None
    assert output.sqnr_db < 25
    noisy = {layer.node: layer.sqnr_db is not None for layer in measured.layers}
    assert noisy == {"one": False, "two": False, "three": True, "four": True}


def test_fp16_that_overflows_is_seen_though_this_cpu_would_not_compute_in_fp16(bench: _Bench) -> None:
    bench.save("fine", [], bench.second.astype(np.float16))
    assert _only(bench.measure("fine")).found is None
    bench.save("overflow", [], (bench.second * 6e4).clip(-6e4, 6e4).astype(np.float16))
    found = _only(bench.measure("overflow")).found
    assert found is not None
    assert "nan" in found.lower()


def test_names_that_only_one_model_has_are_left_out_of_the_layers(bench: _Bench) -> None:
    bench.save("longer", [helper.make_node("Identity", ["active"], ["same"], name="more")])
    assert [layer.tensor for layer in bench.measure("longer", layers=1).layers] == [
        "hidden", "active", "scores", "classes",
    ]  # fmt: skip


def test_a_relu_that_was_fused_leaves_its_name_to_a_value_that_is_compared_behind_it(bench: _Bench) -> None:
    model = onnx.load(bench.folder / "fp32.onnx")
    product, relu, second, _ = model.graph.node
    product.output[0] = relu.input[0] = "active"
    relu.output[0] = second.input[0] = "rectified"
    onnx.save(model, bench.folder / "fused.onnx")
    found = {layer.tensor: layer.sqnr_db for layer in bench.measure("fused", layers=1).layers}
    assert found == {"active": None, "scores": None, "classes": None}
