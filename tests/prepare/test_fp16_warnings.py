"""What a preparation says of FP16: what was not tried, what is lost, and by which measure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Make
from tests.prepare.test_fp16_sweep import sweep_cast

from enginesmith_contract.preparation import Preparation
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.fp16.value_ranges import Watched, watch
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.model_file.facts import facts_of

F, I64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node
Prepare = Callable[..., Preparation]
Array = np.ndarray[Any, Any]
JUDGED = "FP16 was judged on generated values of {}; set production-like values in verification.inputs"


def w(*shape: int, scale: float = 1.0) -> Array:
    random = np.random.default_rng(3)
    return np.asarray(scale * random.standard_normal(shape) / np.sqrt(shape[0]), np.float32)


def _two_layers(make_model: Make) -> Path:
    nodes = [
        node("MatMul", ["x", "v"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"]),
    ]  # fmt: skip
    weights = {"v": w(64, 80), "w": w(80, 80)}
    return make_model(nodes, inputs={"x": (F, [2, 64])}, outputs={"y": (F, None)}, weights=weights)


@pytest.mark.slow
def test_the_first_line_says_that_fp16_was_judged_on_generated_values(prepare_model: Prepare, make_model: Make) -> None:
    preparation = prepare_model(_two_layers(make_model), precision={"default": "fp16"})
    assert preparation.warnings[0].startswith(JUDGED.format("x"))


@pytest.mark.parametrize("known", [{"range": [0, 1]}, {"constant": 0.5}])
def test_described_inputs_get_no_such_line(make_model: Make, tmp_path: Path, known: dict[str, Any]) -> None:
    _, result, _ = sweep_cast(_two_layers(make_model), tmp_path, {"x": InputValues.model_validate(known)})
    assert not [line for line in result.warnings if "generated values" in line]


def test_a_model_that_stays_in_fp32_as_a_whole_gets_no_such_line(make_model: Make, tmp_path: Path) -> None:
    path = make_model([node("Tanh", ["x"], ["y"])], inputs={"x": (F, [2, 64])}, outputs={"y": (F, None)})
    _, result, _ = sweep_cast(path, tmp_path)
    assert not [line for line in result.warnings if "generated values" in line]


def test_ids_are_named_and_no_smaller_range_of_them_is_asked_for(make_model: Make, tmp_path: Path) -> None:
    table = w(500, 80, scale=20)
    table[7] *= 1000
    path = make_model(
        [node("Gather", ["t", "ids"], ["e"]), node("MatMul", ["e", "v"], ["a"]), node("MatMul", ["a", "w"], ["b"]),
         node("LayerNormalization", ["b", "one"], ["n"]), node("MatMul", ["n", "w"], ["y"])],
        inputs={"ids": (I64, [2, 3])}, outputs={"y": (F, None)},
        weights={"t": table, "v": w(80, 80, scale=40), "w": w(80, 80), "one": np.ones(80, np.float32)},
    )  # fmt: skip
    _, result, found = sweep_cast(path, tmp_path)
    lines = [*result.warnings, *found.warnings]
    assert lines[0].startswith(JUDGED.format("ids"))
    assert "ids that hold keys of the model's tables" in " ".join(lines)
    assert "Give the range of ids" not in " ".join(lines)


@pytest.mark.parametrize(
    ("values", "advice"),
    [({}, "give the range in verification.inputs"), ({"x": InputValues(range=(-1, 1))}, "only precision fp32")],
)
def test_tiny_values_are_one_line_without_a_measure(
    make_model: Make, tmp_path: Path, values: dict[str, InputValues], advice: str
) -> None:
    _, _, found = sweep_cast(_two_layers(make_model), tmp_path, values)
    [line] = [line for line in found.warnings if "0.000" in line]
    assert line.startswith("FP16 loses values of x that are all below 0.000001")
    assert advice in line


def test_integers_that_differ_are_counted(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [node("MatMul", ["x", "v"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("ArgMax", ["b"], ["y"], axis=1)],
        inputs={"x": (F, [64, 64])}, outputs={"y": (I64, None)},
        weights={"v": w(64, 80, scale=1e3), "w": w(80, 80, scale=1e3)},
    )  # fmt: skip
    _, result, found = sweep_cast(path, tmp_path)
    said = " ".join([*result.warnings, *found.warnings])
    assert "of the whole numbers in output 'y' differs in FP16" in said
    assert "output 'y' in FP16 differs by" not in said


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_values_are_looked_at_on_the_threads_of_the_feed(make_model: Make) -> None:
    path = _two_layers(make_model)
    model = onnx.load(path)
    feed = Feed(facts=facts_of(model, path).facts, threads=1)
    places = Watched(model=model, folder=path.parent, names=("a", "y"))
    before = _threads()
    seen = list(watch(places, feed, {"x": w(2, 64)}, lambda *_: _threads()))
    assert seen == [("a", before), ("y", before)]
