"""Small graphs, brought into normal form, calibrated with their own values and quantised."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model
from tests.prepare.half_cases import cast_file

from enginesmith_contract.backends import Precision
from enginesmith_runtime.engines.onnxruntime.options import session_options
from enginesmith_runtime.prepare.quantize import onnxruntime_placement, tensorrt_placement
from enginesmith_runtime.prepare.quantize.normal_form import NormalForm, normalise_file

__all__ = [
    "Array",
    "Weights",
    "cast_to_half",
    "make_case",
    "normalise",
    "operators",
    "place_all",
    "ranges_of",
    "residual_case",
    "run",
    "sqnr",
    "watched",
]

Array = np.ndarray[Any, Any]
Weights = dict[str, tuple[int, ...] | Array]
_WIDE = [1, 1, 1, 1]


def make_case(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    weights: Mapping[str, Any],
    *,
    dtype: type[np.generic] = np.float32,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model with the input `x` and the output `y`; a weight given by its shape has random values."""
    random = np.random.default_rng(0)
    arrays = {
        name: value if isinstance(value, np.ndarray) else (random.standard_normal(value) * 0.2).astype(dtype)
        for name, value in weights.items()
    }
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def residual_case() -> onnx.ModelProto:
    """Return a stem, a block with an identity shortcut and one with a projection, as in a ResNet."""
    conv = [f"conv{number}" for number in range(6)]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["stem"], name=conv[0], pads=_WIDE),
        helper.make_node("Relu", ["stem"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name=conv[1], pads=_WIDE),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name=conv[2], pads=_WIDE),
        helper.make_node("Add", ["c2", "r0"], ["a1"], name="identity"),
        helper.make_node("Relu", ["a1"], ["r2"], name="relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], name=conv[3], pads=_WIDE),
        helper.make_node("Relu", ["c3"], ["r3"], name="relu3"),
        helper.make_node("Conv", ["r3", "w4"], ["c4"], name=conv[4], pads=_WIDE),
        helper.make_node("Conv", ["r2", "w5"], ["c5"], name=conv[5]),
        helper.make_node("Add", ["c5", "c4"], ["a2"], name="projection"),
        helper.make_node("Relu", ["a2"], ["y"], name="relu4"),
    ]
    square, last = (8, 8, 3, 3), (8, 8, 1, 1)
    weights: Weights = {"w0": (8, 3, 3, 3), "b0": (8,), "w5": last}
    weights |= dict.fromkeys(("w1", "w2", "w3", "w4"), square)
    return make_case(nodes, ["n", 3, 16, 16], weights)


def run(model: onnx.ModelProto, x: Array, *, fetch: Sequence[str] = (), optimised: bool = False) -> dict[str, Array]:
    """Return the outputs of a model, and values inside it; `optimised`: as a server runs it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fetch if name not in known)
    options = session_options(ort, {})
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    feed = {session.get_inputs()[0].name: x}
    return dict(zip(names, session.run(names, feed), strict=True)) | feed


def watched(normal: onnx.ModelProto) -> list[str]:
    """Return the values whose ranges one of the placements needs."""
    names = (*tensorrt_placement.tensors_to_watch(normal), *onnxruntime_placement.tensors_to_watch(normal))
    return list(dict.fromkeys(names))


def ranges_of(normal: onnx.ModelProto, *samples: Array) -> dict[str, float]:
    """Return the largest absolute values of what both placements watch."""
    names = watched(normal)
    runs = [run(normal, x, fetch=names) for x in samples]
    return {name: max(float(np.abs(one[name]).max()) for one in runs) for name in names}


def normalise(model: onnx.ModelProto) -> NormalForm:
    """Return the normal form of a model, with its weights inside."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "given.onnx"
        onnx.save(model, path)
        form = normalise_file(path, Path(folder))
        load_external_data_for_model(form.model, folder)
    return form


def cast_to_half(normal: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return a model in FP16, as the preparation casts it."""
    path = folder / "normal.onnx"
    onnx.save(normal, path)
    return onnx.load(cast_file(path, folder)[0])


def place_all(source: onnx.ModelProto, x: Array, kind: Precision = Precision.INT8) -> onnx.ModelProto:
    """Return a source quantised for TensorRT with an FP32 rest."""
    normal = normalise(source).model
    return tensorrt_placement.place(normal, ranges_of(normal, x), kind=kind)


def operators(model: onnx.ModelProto, *, of: str) -> list[onnx.NodeProto]:
    """Return the nodes with an operator."""
    return [node for node in model.graph.node if node.op_type == of]


def sqnr(want: Array, have: Array) -> float:
    """Return the ratio of signal to error in dB."""
    error = np.sum((want.astype(np.float64) - have.astype(np.float64)) ** 2)
    return float(10 * np.log10(np.sum(want.astype(np.float64) ** 2) / max(float(error), 1e-30)))
