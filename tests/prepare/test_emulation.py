"""FP16 and BF16 on a CPU give what onnx's own evaluator gives, at every optimisation level of ONNX Runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from enginesmith_contract.backends import Precision
from enginesmith_contract.preparation import Preparation
from enginesmith_runtime.onnx_graphs.emulation import emulation_of

Make = Callable[..., Path]
Prepare = Callable[..., Preparation]
Floats = np.ndarray[Any, Any]
F, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
LEVELS = [ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL]
node = helper.make_node

DOWN = node("Cast", ["x"], ["h"], to=HALF)
UP = node("Cast", ["u"], ["y"], to=F)
LAYER_NORM = [
    DOWN,
    node("ReduceMean", ["h"], ["m"], axes=[1]),
    node("Sub", ["h", "m"], ["c"]),
    node("Pow", ["c", "two"], ["q"]),
    node("ReduceMean", ["q"], ["v"], axes=[1]),
    node("Add", ["v", "eps"], ["w"]),
    node("Sqrt", ["w"], ["r"]),
    node("Div", ["c", "r"], ["u"]),
    UP,
]
SUM = [DOWN, node("ReduceSum", ["h", "ax"], ["t"]), node("Reciprocal", ["t"], ["u"]), UP]
NORM = [
    DOWN,
    node("Mul", ["h", "h"], ["q"]),
    node("ReduceSum", ["q", "ax"], ["t"]),
    node("Sqrt", ["t"], ["n"]),
    node("Max", ["n", "eps"], ["d"]),
    node("Div", ["h", "d"], ["u"]),
    UP,
]
WEIGHTS: dict[str, np.ndarray] = {
    "two": np.array(2, np.float16),
    "eps": np.array(1e-12, np.float16),
    "ax": np.array([1], np.int64),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("nodes", "x"),
    [
        pytest.param(LAYER_NORM, np.array([[900, -900, 850, 3]], np.float32), id="a variance above 65504"),
        pytest.param(LAYER_NORM, np.array([[0.5, 0.25, 3, -1]], np.float32), id="an ordinary LayerNorm"),
        pytest.param(SUM, np.full((1, 200_000), 0.75, np.float32), id="a sum of 200,000"),
        pytest.param(NORM, np.full((1, 8), 1e-3, np.float32), id="squares of 1e-3"),
        pytest.param(NORM, np.zeros((1, 8), np.float32), id="an epsilon that is 0"),
    ],
)
def test_emulated_fp16_is_the_evaluator_s(
    make_model: Make, nodes: list[onnx.NodeProto], x: Floats, level: ort.GraphOptimizationLevel
) -> None:
    path = make_model(
        nodes, inputs={"x": (F, ["n", "m"])}, outputs={"y": (F, None)}, weights=_used(nodes, WEIGHTS), opset=13
    )
    with np.errstate(all="ignore"):
        (want,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    np.testing.assert_array_equal(_run(path, {"x": x}, level), want)


@pytest.mark.parametrize("level", LEVELS)
def test_emulated_bf16_rounds_every_result(make_model: Make, level: ort.GraphOptimizationLevel) -> None:
    path = make_model(
        [
            node("Cast", ["x"], ["b"], to=BF16),
            node("Mul", ["b", "w"], ["c"]),
            node("Add", ["c", "b"], ["d"]),
            node("Cast", ["d"], ["y"], to=F),
        ],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
    )
    _add_bf16_weight(path, "w", [3.0])
    x = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    want = _bf16(_bf16(_bf16(x) * np.float32(3)) + _bf16(x))
    np.testing.assert_array_equal(_run(path, {"x": x}, level), want)


def test_inner_graphs_are_emulated_and_read_outer_values(make_model: Make) -> None:
    def branch(operator: str, output: str) -> onnx.GraphProto:
        inner = node(operator, ["b", "b"], [output])
        return helper.make_graph([inner], operator, [], [helper.make_tensor_value_info(output, BF16, ["n", 4])])

    path = make_model(
        [
            node("Cast", ["x"], ["a"], to=BF16),
            node("Neg", ["a"], ["b"]),
            node("If", ["c"], ["d"], then_branch=branch("Add", "t"), else_branch=branch("Mul", "e")),
            node("Sub", ["d", "a"], ["z"]),
            node("Cast", ["z"], ["y"], to=F),
        ],
        inputs={"x": (F, ["n", 4]), "c": (TensorProto.BOOL, [])},
        outputs={"y": (F, ["n", 4])},
    )
    x = np.array([[1, 2, 3, 4]], np.float32)
    np.testing.assert_array_equal(_run(path, {"x": x, "c": np.array(True)}), -3 * x)
    np.testing.assert_array_equal(_run(path, {"x": x, "c": np.array(False)}), x * x - x)


def test_a_function_is_emulated_as_its_nodes(make_model: Make) -> None:
    path = make_model(
        [DOWN, node("Square", ["h"], ["u"], domain="own"), UP],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        domains=("own",),
    )
    model = onnx.load(path)
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("own", "Square", ["a"], ["b"], [node("Mul", ["a", "a"], ["b"])], opsets)
    )
    onnx.save(model, path)
    assert np.isinf(_run(path, {"x": np.full((1, 4), 300, np.float32)})).all()


def test_weights_beside_the_model_are_found(make_model: Make) -> None:
    path = make_model(
        [DOWN, node("MatMul", ["h", "w"], ["u"]), UP],
        inputs={"x": (F, ["n", 64])},
        outputs={"y": (F, ["n", 64])},
        weights={"w": 2 * np.eye(64, dtype=np.float16)},
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    x = np.ones((2, 64), np.float32)
    np.testing.assert_array_equal(_run(path, {"x": x}), 2 * x)


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_a_model_that_computes_in_fp32_is_left_alone(make_model: Make, stored: type[np.generic]) -> None:
    nodes = [node("Cast", ["w"], ["v"], to=F), node("Mul", ["x", "v"], ["y"])]
    path = make_model(
        nodes, inputs={"x": (F, ["n", 4])}, outputs={"y": (F, ["n", 4])}, weights={"w": np.ones(4, stored)}
    )
    assert emulation_of(path) is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "tf32"])
def test_a_model_with_bf16_inside_is_prepared(
    prepare_model: Prepare, make_model: Make, make_profile: Callable[..., object], precision: str
) -> None:
    preparation = prepare_model(
        _bf16_inside(make_model), make_profile(x=((1, 4), (2, 4), (8, 4))), precision={"default": precision}
    )
    assert preparation.own_precisions == (Precision.BF16,)
    assert preparation.batching.proved
    assert any("the model computes in BF16" in warning for warning in preparation.warnings)
    assert len(preparation.references) == 3


@pytest.mark.parametrize(("count", "want"), [(1, "b0 computes in BF16"), (2, "b0, b1 compute in BF16")])
def test_nodes_that_compute_in_bf16_are_named_in_a_sentence(
    prepare_model: Prepare, make_model: Make, count: int, want: str
) -> None:
    names = ["x", *(f"v{index}" for index in range(count - 1)), "y"]
    path = make_model(
        [node("Add", [names[index], names[index]], [names[index + 1]], name=f"b{index}") for index in range(count)],
        inputs={"x": (BF16, [1, 4])},
        outputs={"y": (BF16, [1, 4])},
    )
    warnings = prepare_model(path, precision={"default": "fp16"}).warnings
    assert any(want in warning for warning in warnings)


def test_inputs_and_outputs_in_bf16_are_prepared_as_well(
    prepare_model: Prepare, make_model: Make, make_profile: Callable[..., object]
) -> None:
    path = make_model([node("Add", ["x", "x"], ["y"])], inputs={"x": (BF16, ["n", 4])}, outputs={"y": (BF16, ["n", 4])})
    preparation = prepare_model(path, make_profile(x=((1, 4), (2, 4), (8, 4))))
    assert preparation.own_precisions == (Precision.BF16,)


def _bf16_inside(make_model: Make) -> Path:
    return make_model(
        [
            node("Mul", ["x", "k"], ["a"]),
            node("Cast", ["a"], ["b"], to=BF16),
            node("Add", ["b", "b"], ["c"]),
            node("Cast", ["c"], ["y"], to=F),
        ],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        weights={"k": np.full(1, 0.3, np.float32)},
    )


def _used(nodes: list[onnx.NodeProto], weights: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: array for name, array in weights.items() if any(name in each.input for each in nodes)}


def _add_bf16_weight(path: Path, name: str, values: list[float]) -> None:
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor(name, BF16, [len(values)], values))
    onnx.save(model, path)


def _bf16(array: Floats) -> Floats:
    tensor = helper.make_tensor("t", BF16, array.shape, array.ravel().tolist())
    return numpy_helper.to_array(tensor).astype(np.float32)


def _run(path: Path, feed: Mapping[str, Floats], level: ort.GraphOptimizationLevel = LEVELS[1]) -> Floats:
    emulation = emulation_of(path)
    assert emulation is not None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    return np.asarray(emulation.open(ort, path, options).run(None, dict(feed))[0])
