"""Values of a model that are looked at: the graph ends with the last of them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from enginesmith_runtime.prepare.fp16.value_ranges import Watched, open_watched
from enginesmith_runtime.prepare.runs.shared_weights import detach_weights

_SIZE = 32
_LARGE = np.full((_SIZE, _SIZE), 0.5, np.float32)


def test_a_graph_that_ends_early_has_no_shared_weight_that_only_later_nodes_read(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "first"], ["a"]), helper.make_node("MatMul", ["a", "second"], ["y"])],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, _SIZE])],
        [numpy_helper.from_array(_LARGE, "first"), numpy_helper.from_array(_LARGE, "second")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    light, weights = detach_weights(model)
    assert set(weights) == {"first", "second"}
    places = Watched(model=light, folder=tmp_path, names=("a", "y"), weights=weights)
    inputs = {"x": np.ones((1, _SIZE), np.float32)}
    for name, value in (("a", 16.0), ("y", 256.0)):
        [found] = open_watched(places, [name]).run([name], inputs)
        assert np.all(found == value)
