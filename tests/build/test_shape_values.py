"""Integer inputs that hold sizes: their values have a range in the profile, and every step keeps to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend, Precision
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError, ModelError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
Points = tuple[list[int], list[int], list[int]]

_node = helper.make_node
_INT64, _INT32, _FLOAT = TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT
_ZERO, _ONE = np.array([0], np.int64), np.array([1], np.int64)


def _save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    size: tuple[int, list[int]],
    outputs: dict[str, tuple[int, list[str | int]]],
    x: list[str | int] | None,
) -> Path:
    inputs = [helper.make_tensor_value_info("s", *size)]
    inputs += [] if x is None else [helper.make_tensor_value_info("x", _FLOAT, x)]
    weights = {"zero": _ZERO, "one": _ONE, "zero0": np.int64(0), "one0": np.int64(1)}
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "sizes",
        inputs,
        [helper.make_tensor_value_info(name, *tensor) for name, tensor in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items() if name in used],
    )
    path = folder / "sizes.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


# The nodes, dtype and shape of the input that holds sizes, its values, the outputs, and the shape of x.
_CASES: dict[str, tuple[list[onnx.NodeProto], tuple[int, list[int]], Points, dict[str, Any], list[Any] | None]] = {
    "TopK": (
        [_node("TopK", ["x", "s"], ["v", "i"], axis=1)],
        (_INT64, [1]),
        ([1], [3], [5]),
        {"v": (_FLOAT, ["N", "k"]), "i": (_INT64, ["N", "k"])},
        ["N", 10],
    ),
    "Reshape": (
        [_node("Reshape", ["x", "s"], ["y"])],
        (_INT64, [3]),
        ([1, 2, 5], [2, 2, 5], [4, 2, 5]),
        {"y": (_FLOAT, ["a", "b", "c"])},
        ["N", 10],
    ),
    "Reshape by INT32": (
        [_node("Cast", ["s"], ["c"], to=_INT64), _node("Reshape", ["x", "c"], ["y"])],
        (_INT32, [2]),
        ([1, 10], [2, 10], [4, 10]),
        {"y": (_FLOAT, ["a", "b"])},
        ["N", 10],
    ),
    "Expand": (
        [_node("Expand", ["x", "s"], ["y"])],
        (_INT64, [2]),
        ([1, 1], [2, 3], [4, 6]),
        {"y": (_FLOAT, ["a", "b"])},
        ["N", 1],
    ),
    "Slice to a scalar end": (
        [_node("Unsqueeze", ["s", "zero"], ["e"]), _node("Slice", ["x", "zero", "e", "one"], ["y"])],
        (_INT64, []),
        ([1], [3], [10]),
        {"y": (_FLOAT, ["N", "e"])},
        ["N", 10],
    ),
    "Range of a scalar": (
        [_node("Range", ["zero0", "s", "one0"], ["y"])],
        (_INT64, []),
        ([1], [3], [12]),
        {"y": (_INT64, ["n"])},
        None,
    ),
    "ConstantOfShape": (
        [_node("ConstantOfShape", ["s"], ["o"]), _node("Cos", ["o"], ["y"])],
        (_INT64, [2]),
        ([1, 1], [2, 3], [4, 6]),
        {"y": (_FLOAT, ["a", "b"])},
        None,
    ),
    "Tile": (
        [_node("Tile", ["x", "s"], ["y"])],
        (_INT64, [2]),
        ([1, 1], [2, 3], [4, 6]),
        {"y": (_FLOAT, ["a", "b"])},
        ["N", 2],
    ),
    "Resize": (
        [_node("Resize", ["x", "", "", "s"], ["y"], mode="linear")],
        (_INT64, [2]),
        ([1, 4], [2, 8], [4, 16]),
        {"y": (_FLOAT, ["N", "W"])},
        ["N", 4],
    ),
}


def _profile(case: str, *, with_values: bool = True) -> Profile:
    _, (_, shape), points, _, x = _CASES[case]
    values = ValueRange(min=points[0], opt=points[1], max=points[2]) if with_values else None
    inputs = {"s": ShapeRange(min=shape, opt=shape, max=shape, values=values)}
    if x is not None:
        rows = {name: (number, *x[1:]) for name, number in (("min", 1), ("opt", 2), ("max", 4))}
        inputs["x"] = ShapeRange.model_validate(rows)
    return Profile(inputs=inputs)


def _model(case: str, folder: Path) -> Path:
    nodes, size, _, outputs, x = _CASES[case]
    return _save(folder, nodes, size, outputs, x)


@pytest.mark.parametrize("case", _CASES)
def test_references_are_made_of_the_values_at_each_point_and_the_cpu_answers_like_them(
    case: str, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(_model(case, tmp_path), _profile(case))
    store.get_files([one.file for one in preparation.references], work / "references")
    seen = {}
    for one in preparation.references:
        with np.load(work / "references" / one.file.path) as file:
            seen[one.point] = file["input:s"].ravel().tolist()
    assert preparation.facts.shape_inputs == ("s",)
    assert seen == dict(zip(("min", "opt", "max"), _CASES[case][2], strict=True))
    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED


@pytest.mark.slow
@pytest.mark.parametrize("case", ["TopK", "Reshape by INT32", "Slice to a scalar end", "Tile"])
def test_tensorrt_for_rtx_builds_for_the_range_of_values(
    case: str, prepare_model: PrepareModel, make_request: MakeRequest, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(_model(case, tmp_path), _profile(case))
    build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())


@pytest.mark.slow
def test_tensorrt_for_rtx_names_the_missing_field_and_an_entry_to_paste(
    prepare_model: PrepareModel, make_request: MakeRequest, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(_model("TopK", tmp_path), _profile("TopK", with_values=False))
    with pytest.raises(BuildError) as refusal:
        build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    assert refusal.value.reason == "MissingValues"
    assert "s: {min: [1], opt: [1], max: [1], values: {min: [1], opt: [1], max: [1]}}" in refusal.value.remedy


def test_a_model_that_refuses_what_it_was_filled_with_names_the_missing_field(
    prepare_model: PrepareModel, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as refusal:
        prepare_model(_model("Reshape", tmp_path), _profile("Reshape", with_values=False))
    assert refusal.value.reason == "ProfileRefusedByModel"
    assert "values: {min: [1, 1, 1]" in refusal.value.remedy


def test_a_cast_model_is_tried_with_the_values(
    prepare_model: PrepareModel, make_request: MakeRequest, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(_model("Reshape", tmp_path), _profile("Reshape"), Precision.FP16)
    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED


def test_what_leaves_fp16_s_range_is_looked_for_with_the_values(prepare_model: PrepareModel, tmp_path: Path) -> None:
    path = _model("Range of a scalar", tmp_path)
    model = onnx.load(path)
    # 70,000 is outside FP16's range; 0 and 1, which fill an input without values, are inside.
    model.graph.node.extend([_node("Cast", ["s"], ["f"], to=_FLOAT), _node("Relu", ["f"], ["z"], name="z")])
    model.graph.output.append(helper.make_tensor_value_info("z", _FLOAT, []))
    onnx.save(model, path)
    sizes = ShapeRange(min=[], opt=[], max=[], values=ValueRange(min=[1], opt=[3], max=[70_000]))
    preparation = prepare_model(path, Profile(inputs={"s": sizes}), Precision.FP16)
    assert preparation.kept["z"] == "its values reach 7e+04, and FP16 ends at 65504"
