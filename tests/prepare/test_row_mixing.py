"""A graph keeps the rows of a batch apart only where each node on the way to an output is known to do so."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_runtime.prepare.model_file.row_mixing import find_mixing_nodes

node = helper.make_node
TO_THE_END = 2**63 - 1


def _mixing(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, list[int]], shape: Sequence[str | int], opset: int = 17
) -> tuple[str, ...]:
    weights = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    floats = np.random.default_rng(0).normal(0, 1, (1, 16, 8)).astype(np.float32)
    weights += [numpy_helper.from_array(floats, "w"), numpy_helper.from_array(floats[..., :4].copy(), "r")]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    return find_mixing_nodes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), Path())


def _branch(condition: str, name: str) -> onnx.NodeProto:
    bodies = []
    for value in (0.0, 1.0):
        constant = node("Constant", [], ["b"], value=numpy_helper.from_array(np.array(value, np.float32)))
        out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [])
        bodies.append(helper.make_graph([constant], "b", [], [out]))
    return node("If", [condition], [name], then_branch=bodies[0], else_branch=bodies[1])


def _scan(rows: str, name: str) -> onnx.NodeProto:
    infos = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [8]) for one in ("st", "el", "st2", "o")]
    nodes = [node("Max", ["st", "el"], ["st2"]), node("Identity", ["st2"], ["o"])]
    body = helper.make_graph(nodes, "b", infos[:2], infos[2:])
    return node("Scan", ["start", rows], ["last", name], body=body, num_scan_inputs=1)


@pytest.mark.parametrize(
    ("nodes", "constants", "shape"),
    [
        pytest.param([node("ReduceMax", ["x"], ["y"], axes=[0])], {}, "nf", id="the largest of a column"),
        pytest.param([node("ReduceMean", ["x"], ["y"], keepdims=0)], {}, "nf", id="the mean of everything"),
        pytest.param([node("ReduceSum", ["x", "a"], ["y"])], {"a": [-2]}, "nf", id="a sum, axes as an input"),
        pytest.param([node("Softmax", ["x"], ["y"], axis=0)], {}, "nf", id="softmax"),
        pytest.param([node("CumSum", ["x", "a"], ["y"])], {"a": 0}, "nf", id="a running sum"),
        pytest.param([node("TopK", ["x", "k"], ["y", "i"], axis=0)], {"k": [1]}, "nf", id="the first rows by size"),
        pytest.param([node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
                     {"s": [-1], "e": [-(2**62)], "a": [0], "t": [-1]}, "nf", id="a flip"),
        pytest.param([node("Gather", ["x", "a"], ["y"], axis=0)], {"a": 0}, "nf", id="the first row"),
        pytest.param([node("Relu", ["x"], ["z"]), node("Concat", ["x", "z"], ["y"], axis=0)], {}, "nf", id="joined"),
        pytest.param([node("Pad", ["x", "p"], ["y"])], {"p": [1, 0, 0, 0]}, "nf", id="a row before the others"),
        pytest.param([node("Transpose", ["x"], ["t"]), node("MatMul", ["t", "x"], ["y"])], {}, "nf", id="x' x"),
        pytest.param([node("Gemm", ["x", "x"], ["y"], transA=1)], {}, "nf", id="x' x as Gemm"),
        pytest.param([node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)], {}, "ntf", id="rows as time steps"),
        pytest.param([node("LayerNormalization", ["x", "w"], ["y"], axis=0)], {}, "nf", id="a norm of all"),
        pytest.param([node("Shape", ["x"], ["sh"]), node("Gather", ["sh", "z"], ["b"], axis=0),
                      node("Concat", ["b", "rest"], ["s"], axis=0), node("Reshape", ["x", "s"], ["h"]),
                      node("Softmax", ["h"], ["y"], axis=0)],
                     {"z": [0], "rest": [-1, 2, 4]}, "ntf", id="behind a reshape by the shape"),
    ],
)  # fmt: skip
def test_a_node_along_the_first_dimension_is_named(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, list[int]], shape: str
) -> None:
    (found,) = _mixing(nodes, constants, _sizes(shape))
    assert found == f"node {nodes[-1].output[0]!r} ({nodes[-1].op_type}) works across rows"


@pytest.mark.parametrize(
    ("nodes", "constants", "shape"),
    [
        pytest.param([node("ReduceMax", ["x"], ["y"], axes=[-1])], {}, "nf", id="the largest of a row"),
        pytest.param([node("Slice", ["x", "s", "e", "a"], ["y"])],
                     {"s": [0, 2], "e": [TO_THE_END, 4], "a": [0, 1]}, "nf", id="columns"),
        pytest.param([node("Pad", ["x", "p"], ["y"])], {"p": [0, 1, 0, 0]}, "nf", id="a column before the others"),
        pytest.param([node("Gather", ["x", "a"], ["y"], axis=1)], {"a": 0}, "ntf", id="the first token"),
        pytest.param([node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
                      node("LSTM", ["t", "w", "r"], ["l"], hidden_size=4), node("Squeeze", ["l", "one"], ["o"]),
                      node("Transpose", ["o"], ["y"], perm=[1, 0, 2])], {"one": [1]}, "ntf", id="time first"),
        pytest.param([node("LSTM", ["x", "w", "r"], ["l", "h"], hidden_size=4, layout=1),
                      node("Squeeze", ["h", "one"], ["y"])], {"one": [1]}, "ntf", id="time second"),
        pytest.param([node("Reshape", ["x", "s"], ["h"]), node("Transpose", ["h"], ["q"], perm=[0, 2, 1, 3]),
                      node("Transpose", ["h"], ["k"], perm=[0, 2, 3, 1]), node("MatMul", ["q", "k"], ["qk"]),
                      node("Softmax", ["qk"], ["p"], axis=-1), node("MatMul", ["p", "q"], ["o"]),
                      node("Transpose", ["o"], ["b"], perm=[0, 2, 1, 3]), node("Reshape", ["b", "e"], ["y"])],
                     {"s": [0, -1, 2, 4], "e": [0, -1, 8]}, "ntf", id="attention"),
        pytest.param([node("Reshape", ["x", "s"], ["h"]), node("Softmax", ["h"], ["p"], axis=-1),
                      node("Reshape", ["p", "e"], ["y"])],
                     {"s": [-1, 4, 8], "e": [-1, 16, 8]}, "nuf", id="windows of an image"),
        pytest.param([node("Shape", ["x"], ["sh"]), node("Reshape", ["x", "flat"], ["h"]), node("Relu", ["h"], ["r"]),
                      node("Reshape", ["r", "sh"], ["y"])], {"flat": [-1, 8]}, "ntf", id="all tokens in one matrix"),
        pytest.param([node("Einsum", ["x", "x"], ["y"], equation="bij,bkj->bik")], {}, "ntf", id="einsum of a batch"),
        pytest.param([node("Relu", ["x"], ["y"]), node("ReduceMax", ["x"], ["unused"])], {}, "nf", id="unused"),
        *(pytest.param([node("Shape", ["x"], ["sh"]), node("Cast", ["sh"], ["c"], to=TensorProto.INT32),
                        node("Slice", ["c", "z", "one"], ["b"]), node("Cast", ["b"], ["bb"], to=TensorProto.INT64),
                        node("Concat", ["bb", "rest"], ["s"], axis=0), node("Reshape", ["x", "s"], ["y"])],
                       {"z": [0], "one": [1], "rest": rest}, shape, id=f"reshape by a cast shape to {rest}")
          for rest, shape in (([-1, 2, 4], "ntf"), ([-1], "nchw"))),
        pytest.param([node("Shape", ["x"], ["s"], start=1, end=2), node("Cast", ["s"], ["c"], to=TensorProto.FLOAT),
                      node("ReduceMax", ["c"], ["m"], keepdims=0), node("Div", ["x", "m"], ["y"])], {}, "ntf",
                     id="the number of tokens"),
        pytest.param([node("Shape", ["x"], ["sh"]), node("ConstantOfShape", ["sh"], ["zeros"]),
                      node("Add", ["x", "zeros"], ["y"])], {}, "nf", id="zeros of the input's shape"),
        pytest.param([node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["y"])], {}, "nchw", id="pools"),
        pytest.param([node("InstanceNormalization", ["x", "s", "s"], ["y"])], {}, "nchw", id="an image's own norm"),
    ],
)  # fmt: skip
def test_what_stays_within_a_row_is_not(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, list[int]], shape: str
) -> None:
    assert _mixing(nodes, constants, _sizes(shape)) == ()


@pytest.mark.parametrize(
    ("nodes", "constants", "culprit"),
    [
        pytest.param([node("Reshape", ["x", "m1"], ["f"]), node("ReduceMax", ["f"], ["m"], keepdims=0),
                      node("Add", ["x", "m"], ["y"])], {"m1": [-1]}, "m", id="the largest of a flat array"),
        pytest.param([node("Reshape", ["x", "m1"], ["f"]), node("ReduceMax", ["f"], ["m"], keepdims=0),
                      node("Cast", ["m"], ["c"], to=TensorProto.BOOL), _branch("c", "i"),
                      node("Add", ["x", "i"], ["y"])],
                     {"m1": [-1]}, "m", id="a branch for any row"),
        pytest.param([node("ReduceMax", ["x"], ["k"], axes=[1]), _branch("k", "i"), node("Add", ["x", "i"], ["y"])],
                     {}, "i", id="a branch"),
        pytest.param([node("Einsum", ["x", "ones"], ["m"], equation="ij,k->k"), node("Add", ["x", "m"], ["y"])],
                     {"ones": [1] * 8}, "m", id="einsum that sums rows"),
        pytest.param([node("Einsum", ["x", "x"], ["y"], equation="ij,kj->ik")], {}, "y", id="einsum of two labels"),
        pytest.param([node("GatherND", ["x", "z"], ["m"]), node("Add", ["x", "m"], ["y"])], {"z": [[0]]}, "m",
                     id="the first row by its number"),
        pytest.param([node("SplitToSequence", ["x"], ["q"], axis=0), node("SequenceAt", ["q", "z"], ["m"]),
                      node("Add", ["x", "m"], ["y"])], {"z": 0}, "q", id="the first row of a sequence"),
        pytest.param([_scan("x", "y")], {}, "last", id="a running maximum"),
        pytest.param([node("Reshape", ["x", "s"], ["r"]), node("Reshape", ["r", "e"], ["y"])],
                     {"s": [-1, 3], "e": [-1, 8]}, "r", id="a reshape that cuts rows"),
        pytest.param([node("Reshape", ["x", "s"], ["y"])], {"s": [-1, 4]}, "y", id="windows as rows of their own"),
        pytest.param([node("MeanVarianceNormalization", ["x"], ["y"], axes=[0])], {}, "y", id="a norm of columns"),
        pytest.param([node("Unique", ["x"], ["u"], axis=0), node("Add", ["x", "u"], ["y"])], {}, "u", id="unique rows"),
        pytest.param([node("Tile", ["x", "two"], ["y"])], {"two": [2, 1]}, "y", id="rows twice"),
        pytest.param([node("FusedRows", ["x"], ["y"], domain="vendor")], {}, "y", id="another domain"),
        pytest.param([node("Transpose", ["x"], ["y"])], {}, "y", id="rows as columns of an output"),
        pytest.param([node("Reshape", ["x", "s"], ["y"])], {"s": [1, -1]}, "y", id="rows in one"),
        pytest.param([node("Shape", ["x"], ["s"], start=0, end=1), node("Cast", ["s"], ["c"], to=TensorProto.FLOAT),
                      node("ReduceMax", ["c"], ["m"], keepdims=0), node("Div", ["x", "m"], ["y"])], {}, "y",
                     id="the number of rows"),
        pytest.param([node("Shape", ["x"], ["s"], start=0, end=1), node("Equal", ["s", "five"], ["is"]),
                      node("Cast", ["is"], ["c"], to=TensorProto.FLOAT), node("Add", ["x", "c"], ["y"])],
                     {"five": [5]}, "y", id="whether there are five rows"),
        pytest.param([node("Size", ["x"], ["s"]), node("Cast", ["s"], ["c"], to=TensorProto.BOOL), _branch("c", "i"),
                      node("Add", ["x", "i"], ["y"])], {}, "y", id="a branch by the number of values"),
    ],
)  # fmt: skip
def test_what_is_not_known_to_keep_rows_apart_is_named(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, list[int]], culprit: str
) -> None:
    found = _mixing(nodes, constants, _sizes("nf"))
    assert found
    assert found[0].startswith((f"node {culprit!r} (", f"output {culprit!r} is not known"))


@pytest.mark.parametrize("name", ["cls", "det", "rec"])
def test_real_models_keep_rows_apart(ocr_models: Path, name: str) -> None:
    path = ocr_models / f"{name}.onnx"
    assert find_mixing_nodes(onnx.load(path), path.parent) == ()


def _sizes(letters: str) -> list[str | int]:
    sizes: dict[str, str | int] = {"n": "n", "f": 8, "t": "t", "u": 16, "c": 3, "h": 16, "w": 16}
    return [sizes[letter] for letter in letters]
