"""Dimensions of 0: a cache that is empty at the first step, an empty batch, a dimension that the model fixes at 0."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]


Shapes = dict[str, list[Any]]


def _save(folder: Path, nodes: Sequence[onnx.NodeProto], inputs: Shapes, outputs: Shapes) -> Path:
    graph = helper.make_graph(
        nodes,
        "empty",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    path = folder / "empty.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def _cache(folder: Path) -> Path:
    nodes = [helper.make_node("Concat", ["cache", "x"], ["y"], axis=1)]
    return _save(folder, nodes, {"x": [1, 1, 4], "cache": [1, "T", 4]}, {"y": [1, "T1", 4]})


def _rows(folder: Path) -> Path:
    return _save(folder, [helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4]})


def _fixed(folder: Path) -> Path:
    nodes = [helper.make_node("Concat", ["none", "x"], ["y"], axis=1), helper.make_node("Relu", ["none"], ["z"])]
    return _save(folder, nodes, {"x": ["N", 4], "none": ["N", 0]}, {"y": ["N", 4], "z": ["N", 0]})


def _range(*points: tuple[int, ...]) -> ShapeRange:
    return ShapeRange(min=points[0], opt=points[1], max=points[2])


_CASES: dict[str, tuple[Callable[[Path], Path], dict[str, ShapeRange], dict[str, tuple[int, ...]]]] = {
    "cache": (_cache, {"cache": _range((1, 0, 4), (1, 8, 4), (1, 16, 4))}, {"x": (1, 1, 4), "cache": (1, 0, 4)}),
    "always empty": (_cache, {"cache": _range((1, 0, 4), (1, 0, 4), (1, 0, 4))}, {"x": (1, 1, 4), "cache": (1, 0, 4)}),
    "batch": (_rows, {"x": _range((0, 4), (2, 4), (8, 4))}, {"x": (0, 4)}),
    "fixed": (
        _fixed,
        {"x": _range((1, 4), (2, 4), (8, 4)), "none": _range((1, 0), (2, 0), (8, 0))},
        {"x": (2, 4), "none": (2, 0)},
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_an_empty_input_within_the_profile_is_answered(
    case: str, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path, tmp_path: Path
) -> None:
    save, ranges, shapes = _CASES[case]
    manifest = build(make_request(prepare_model(save(tmp_path), Profile(inputs=ranges))), work, SilentReporter())
    store.get_files(manifest.files, work / "copy")
    with loader(Backend.ONNXRUNTIME).load(manifest, work / "copy", {}).open_instance() as instance:
        answers = instance.infer(
            {name: np.ones(shape, np.float32) for name, shape in shapes.items()}, profile=0, outputs=("y",)
        )
    assert manifest.verification.status is VerificationStatus.PASSED
    want = {"batch": (0, 4), "fixed": (2, 4)}.get(case, (1, 1, 4))
    assert answers["y"].shape == want
    assert np.all(answers["y"] == 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", _CASES)
def test_tensorrt_for_rtx_takes_a_profile_with_dimensions_of_0(
    case: str, prepare_model: PrepareModel, make_request: MakeRequest, work: Path, tmp_path: Path
) -> None:
    save, ranges, _ = _CASES[case]
    preparation = prepare_model(save(tmp_path), Profile(inputs=ranges))
    build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())


def test_a_dimension_that_the_model_fixes_at_0_is_fixed(prepare_model: PrepareModel, tmp_path: Path) -> None:
    ranges = {"x": _range((1, 4), (2, 4), (8, 4)), "none": _range((1, 0), (2, 0), (8, 0))}
    facts = prepare_model(_fixed(tmp_path), Profile(inputs=ranges)).facts
    assert [spec.shape for spec in (*facts.inputs, *facts.outputs)] == [(-1, 4), (-1, 0), (-1, 4), (-1, 0)]
