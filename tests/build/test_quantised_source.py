"""A model that another tool has quantised, with `precision` unset: its pairs stay, and the gate judges the engine."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.build.conftest import MakeRequest, PrepareModel
from tests.prepare.oriented_classifier import SIZE, learn_ranges, quantise, write_classifier

from enginesmith_contract.backends import Backend, Precision
from enginesmith_contract.errors import BuildError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.prepare.quantize.placement_rules import check_rules
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

_SHAPES = {"image": ShapeRange(min=(1, 1, SIZE, SIZE), opt=(2, 1, SIZE, SIZE), max=(4, 1, SIZE, SIZE))}
_PAIR = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    """Return a classifier in INT8, with pairs where TensorRT wants them."""
    classifier = write_classifier(tmp_path / "plain.onnx")
    return quantise(classifier, learn_ranges(classifier), tmp_path / "quantised.onnx")


@pytest.fixture
def prepared(quantised: Path, prepare_model: PrepareModel) -> Preparation:
    """Return its preparation, as a document without `precision` asks for it."""
    return prepare_model(quantised, Profile(inputs=_SHAPES))


@pytest.mark.slow
@pytest.mark.parametrize("backend", [Backend.ONNXRUNTIME, Backend.TENSORRT_RTX])
def test_its_pairs_stay_and_its_engine_is_built_and_judged(
    backend: Backend, quantised: Path, prepared: Preparation, store: Store, work: Path, make_request: MakeRequest
) -> None:
    assert (prepared.precision.default, prepared.refusals) == (Precision.FP32, ())
    assert (prepared.own_precisions, prepared.arithmetic.limit) == ((Precision.INT8,), 0.1)
    model = onnx.load(store.get_files(prepared.model, work / "model"))
    pairs = [
        [node.op_type for node in one.graph.node if node.op_type in _PAIR] for one in (onnx.load(quantised), model)
    ]
    assert pairs[0] == pairs[1] != []
    assert check_rules(model) == ()
    verification = build(make_request(prepared, backend), work, SilentReporter()).verification
    runs_here = backend is Backend.ONNXRUNTIME
    assert verification.status is (VerificationStatus.PASSED if runs_here else VerificationStatus.NOT_RUN)


def test_a_scale_of_infinity_which_tensorrt_builds_silently_is_refused(
    quantised: Path, prepare_model: PrepareModel, work: Path, make_request: MakeRequest
) -> None:
    model = onnx.load(quantised)
    pair = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for tensor in model.graph.initializer:
        if tensor.name == pair.input[1]:
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, [np.inf]))
    onnx.save(model, quantised)
    request = make_request(prepare_model(quantised, Profile(inputs=_SHAPES)), Backend.TENSORRT_RTX)
    with pytest.raises(BuildError, match="its scale is inf, and scales are finite and above 0") as refused:
        build(request, work, SilentReporter())
    assert refused.value.reason == "UnsupportedOperators"
