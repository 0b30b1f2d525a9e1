"""A model of one multiplication: for tests that are about anything but the model, and cost a processor nothing."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["ROWS", "save_small_model"]

ROWS = ({"name": "rows", "inputs": {"x": {"min": [1, 4], "opt": [4, 4], "max": [8, 4]}}},)
"""Its only profile."""


def save_small_model(path: Path) -> Path:
    """Write the model and return its path."""
    weights = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
