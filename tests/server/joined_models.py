"""Small models with rows, for requests that are joined: one that computes, one that can fail, and two that are odd."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

MOST = 16
"""Rows of the largest batch."""


def _save(folder: Path, name: str, nodes: Any, inputs: Any, outputs: Any, weights: Mapping[str, np.ndarray]) -> Path:
    def value(spec: tuple[str, int, list[Any]]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(*spec)

    graph = helper.make_graph(
        nodes,
        name,
        [value(spec) for spec in inputs],
        [value(spec) for spec in outputs],
        initializer=[onnx.numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _mlp(folder: Path) -> Path:
    random = np.random.default_rng(7)
    weights = {f"w{layer}": random.normal(0, 0.1, (64, 64)).astype(np.float32) for layer in range(3)}
    nodes = []
    for layer in range(3):
        before = "x" if layer == 0 else f"h{layer}"
        nodes += [
            helper.make_node("MatMul", [before, f"w{layer}"], [f"p{layer}"]),
            helper.make_node("Tanh", [f"p{layer}"], [f"h{layer + 1}" if layer < 2 else "y"]),
        ]
    return _save(
        folder, "mlp", nodes, [("x", TensorProto.FLOAT, ["n", 64])], [("y", TensorProto.FLOAT, ["n", 64])], weights
    )


def _lookup(folder: Path) -> Path:
    """Fails where an index is not in the table."""
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    node = helper.make_node("Gather", ["table", "at"], ["row"])
    return _save(
        folder,
        "lookup",
        [node],
        [("at", TensorProto.INT64, ["n"])],
        [("row", TensorProto.FLOAT, ["n", 4])],
        {"table": table},
    )


def _doubling(folder: Path) -> Path:
    """Has two rows of the output for each row of the input, which no proof of batching would let pass."""
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    return _save(
        folder, "doubling", [node], [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["m", 4])], {}
    )


def _texts(folder: Path) -> Path:
    nodes = [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Add", ["a", "b"], ["c"])]
    inputs = [
        ("s", TensorProto.STRING, ["n"]),
        ("a", TensorProto.FLOAT, ["n", "w"]),
        ("b", TensorProto.FLOAT, ["n", "w"]),
    ]
    outputs = [("t", TensorProto.STRING, ["n"]), ("c", TensorProto.FLOAT, ["n", "w"])]
    return _save(folder, "texts", nodes, inputs, outputs, {})


MODELS: Mapping[str, tuple[Callable[[Path], Path], Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]]] = {
    "mlp": (_mlp, {"x": ((1, 64), (MOST, 64))}),
    "lookup": (_lookup, {"at": ((1,), (MOST,))}),
    "doubling": (_doubling, {"x": ((1, 4), (MOST, 4))}),
    "texts": (_texts, {"s": ((1,), (MOST,)), "a": ((1, 1), (MOST, 4)), "b": ((1, 1), (MOST, 4))}),
}
