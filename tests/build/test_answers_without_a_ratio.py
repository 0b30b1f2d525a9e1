"""Engines of models whose right answers are masks, NaN, ids or nothing at all: built, verified and stored."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.errors import SpecError
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import OutputGate, VerificationPolicy, VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.progress import SilentReporter

Make = Callable[..., Any]
F, BOOL = TensorProto.FLOAT, TensorProto.BOOL
node = helper.make_node
LOWEST = float(np.finfo(np.float32).min)


def _write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, int],
    dtype: int,
    weights: Mapping[str, np.ndarray],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "answers",
        [helper.make_tensor_value_info(name, kind, ["n", 4]) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", dtype, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("nodes", "inputs", "dtype", "weights"),
    [
        pytest.param(
            [node("Where", ["m", "x", "mask"], ["y"])], {"x": F, "m": BOOL}, F, {"mask": np.float32(mask)}, id=name
        )
        for name, mask in (("-inf", -np.inf), ("NaN", np.nan), ("float32's lowest", LOWEST))
    ]
    + [
        pytest.param([node("Greater", ["x", "half"], ["y"])], {"x": F}, BOOL, {"half": np.float32(0.5)}, id="booleans"),
        pytest.param(
            [node("Mul", ["x", "many"], ["b"]), node("Cast", ["b"], ["y"], to=TensorProto.UINT8)],
            {"x": F},
            TensorProto.UINT8,
            {"many": np.float32(255)},
            id="bytes",
        ),
        pytest.param(
            [node("Mul", ["x", "many"], ["b"]), node("Floor", ["b"], ["y"])],
            {"x": F},
            F,
            {"many": np.float32(3000)},
            id="ids as floats",
        ),
    ],
)
def test_an_engine_that_answers_as_the_model_does_is_built(
    tmp_path: Path,
    work: Path,
    prepare_model: Make,
    make_request: Make,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, int],
    dtype: int,
    weights: Mapping[str, np.ndarray],
) -> None:
    path = _write(tmp_path / "model.onnx", nodes, inputs, dtype, weights)
    sizes = ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))
    preparation = prepare_model(path, Profile(inputs=dict.fromkeys(inputs, sizes)))
    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED


def test_limits_of_an_output_that_the_model_lacks_are_refused(
    tmp_path: Path, work: Path, prepare_model: Make, make_request: Make
) -> None:
    path = _write(tmp_path / "model.onnx", [node("Relu", ["x"], ["y"])], {"x": F}, F, {})
    policy = VerificationPolicy(outputs={"scores": OutputGate(limit=0.5)})
    request = make_request(prepare_model(path), verification=policy)
    with pytest.raises(SpecError) as refusal:
        build(request, work, SilentReporter())
    assert (refusal.value.where, refusal.value.why) == ("verification.outputs.scores", "it has y")
