"""What TensorRT does not take ends its build before the builder starts, with a cure; ONNX Runtime builds it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def _row(name: str, dtype: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, ["n", 4])


def _loop() -> onnx.NodeProto:
    body = helper.make_graph(
        [node("Add", ["v", "v"], ["w"]), node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", I64, []), helper.make_tensor_value_info("go", BOOL, []), _row("v")],
        [helper.make_tensor_value_info("on", BOOL, []), _row("w")],
    )
    return node("Loop", ["count", "", "x"], ["y"], name="again", body=body)


@pytest.mark.parametrize(
    ("nodes", "outputs", "weights", "want_node", "want_cure"),
    [
        pytest.param([node("Relu", ["x"], ["y"])], "yx", {}, "input 'x'", "Identity", id="an input that is an output"),
        pytest.param([_loop()], "y", {"count": np.int64(3)}, "node 'again' (Loop)", "constant true", id="no condition"),
        pytest.param(
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
                node("DequantizeLinear", ["q", "s", "z"], ["y"], name="back"),
            ],
            "y",
            {"s": np.float32(0.1), "z": np.uint8(128)},
            "node 'quantise' (QuantizeLinear), node 'back' (DequantizeLinear): its zero point is not 0",
            "zero point 0",
            id="a zero point",
        ),
        pytest.param(
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
                node("DequantizeLinear", ["q", "s", "z"], ["y"], name="back"),
            ],
            "y",
            {"s": np.float32(-0.1), "z": np.int8(0)},
            "node 'quantise' (QuantizeLinear), node 'back' (DequantizeLinear): its scale is -0.1",
            "finite and above 0",
            id="a scale",
        ),
    ],
)
def test_tensorrt_s_build_ends_on_the_node_and_onnx_runtime_s_does_not(
    tmp_path: Path,
    work: Path,
    store: Store,
    prepare_model: Callable[..., Preparation],
    make_request: Callable[..., BuildRequest],
    nodes: Sequence[onnx.NodeProto],
    outputs: str,
    weights: Mapping[str, np.ndarray],
    want_node: str,
    want_cure: str,
) -> None:
    graph = helper.make_graph(
        nodes,
        "refused",
        [_row("x")],
        [_row(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    preparation = prepare_model(path)

    with pytest.raises(BuildError) as refusal:
        build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    assert refusal.value.reason == "UnsupportedOperators"
    assert want_node in refusal.value.why
    assert want_cure in refusal.value.why
    assert "onnxruntime" in refusal.value.remedy

    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED
    folder = tmp_path / "engine"
    store.get_files(manifest.files, folder)
    engine = loader(Backend.ONNXRUNTIME).load(manifest, folder, {})
    x = np.array([[1, -2, 3, -4]], np.float32)
    with engine.open_instance() as instance:
        answers = instance.infer({"x": x}, profile=0, outputs=tuple(outputs))
    engine.close()
    assert list(answers) == list(outputs)
    if "x" in answers:
        np.testing.assert_array_equal(answers["x"], x)
        np.testing.assert_array_equal(answers["y"], np.maximum(x, 0))
