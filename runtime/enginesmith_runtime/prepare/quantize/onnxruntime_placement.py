"""Places QuantizeLinear and DequantizeLinear so that ONNX Runtime's CPU provider uses integer kernels.

It needs a pair before a node, a Q after it, and the bias in INT32. TensorRT refuses such a bias, and the additional Q
makes it slower, so each library has its own graph. Other nodes stay in FP32, because ONNX Runtime has few FP16 kernels
for CPUs.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX

from enginesmith_runtime.onnx_graphs.graph import all_nodes, fresh_name, name_nodes
from enginesmith_runtime.onnx_graphs.order import sort_nodes
from enginesmith_runtime.prepare.model_file.inferred_shapes import without_declarations
from enginesmith_runtime.prepare.quantize.ranges_by_value import RangesByValue
from enginesmith_runtime.prepare.quantize.weight_values import along, in_steps, inside, largest_values, weight_values
from enginesmith_runtime.prepare.quantize.weighted_nodes import find_weighted

__all__ = ["place", "tensors_to_watch"]

_INTEGER_KERNELS: Final = frozenset({"Conv", "Gemm", "MatMul"})
_NOT_NEGATIVE: Final = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Sqrt"})
_HAND_ON: Final = frozenset(
    {
        "Add", "AveragePool", "Concat", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity",
        "MaxPool", "Mul", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def tensors_to_watch(model: onnx.ModelProto, kept: Collection[str] = ()) -> tuple[str, ...]:
    """Return the values whose ranges `place` needs: inputs and outputs of weighted nodes and of the Relus after them.

    Args:
        model: A normal form.
        kept: Nodes that stay in FP32.
    """
    return tuple(dict.fromkeys(_watched(model.graph, kept)))


def place(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    *,
    kept: Collection[str] = (),
    weights: Path = Path(),
) -> onnx.ModelProto:
    """Return the model with its weighted nodes in INT8. External weights stay in their files unless they are quantised.

    Args:
        model: A normal form in FP32.
        ranges: Largest absolute value to represent, by name of the value.
        kept: Nodes that stay in FP32.
        weights: Folder of the external weights.

    Raises:
        enginesmith_contract.errors.ModelError: `RangeMissing` if a value has no range above 0.
    """
    known = RangesByValue(model.graph, ranges)
    positive = _positive_values(model.graph)
    table = {}
    for name in tensors_to_watch(model, kept):
        amax = known.of(name)
        lowest = 0.0 if name in positive else -amax
        table[name] = (np.float32(lowest), np.float32(amax))
    placed = onnx.ModelProto()
    placed.CopyFrom(model)
    # The quantiser ignores values of unknown type.
    placed.graph.value_info.extend(shape_inference.infer_shapes(without_declarations(model)).graph.value_info)
    nodes = list(_quantised_nodes(model.graph, kept))
    if not nodes:  # for the quantiser an empty list means all nodes
        return placed
    _put_biases(placed, nodes, weights)
    large = _put_stand_ins(placed, nodes, weights)
    quantizer = QDQQuantizer(
        placed,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,  # ONNX Runtime converts INT8 to UINT8 on x86, but not always
        tensors_range=TensorsData(CalibrationMethod.MinMax, table),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({*_INTEGER_KERNELS, "Relu"}),
        extra_options={"WeightSymmetric": True},
    )
    quantizer.quantize_model()
    result: onnx.ModelProto = quantizer.model.model
    del result.metadata_props[-1]
    _replace_stand_ins(result.graph, large, weights)
    sort_nodes(result, result.graph.name)
    name_nodes(result)
    del result.graph.value_info[:]
    return result


def _quantised_nodes(graph: onnx.GraphProto, kept: Collection[str]) -> Iterator[onnx.NodeProto]:
    """Yield the weighted nodes, and the Relus that a Q after a node replaces."""
    made = set()
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weighted = {
        one.node.name
        for one in find_weighted(graph)
        if one.node.op_type in _INTEGER_KERNELS
        and one.weight.data_type == TensorProto.FLOAT
        and (one.node.op_type != "Gemm" or _has_plain_bias(one.node, constants))
    }
    for node in graph.node:
        if node.name in kept:
            continue
        if node.name in weighted:
            made.add(node.output[0])
            yield node
        elif node.op_type == "Relu" and node.input[0] in made:
            yield node


def _has_plain_bias(gemm: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a constant bias is one row, as in an integer kernel, whose INT32 bias has no factor."""
    bias = constants.get(next(iter(gemm.input[2:]), ""))
    return bias is None or (_float_attribute(gemm, "alpha") == 1 and math.prod(bias.dims[:-1]) == 1)


def _put_biases(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], folder: Path) -> None:
    """Load the biases of nodes. Those of a Gemm become [n] without a factor, because the quantiser fails for others."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {node.name for node in nodes}
    taken = _taken_names(model.graph)
    for one in find_weighted(model.graph):
        bias = tensors.get(next(iter(one.node.input[2:]), ""))
        if bias is None or one.node.name not in names:
            continue
        bias.CopyFrom(inside(bias, folder))
        factor, channels = _float_attribute(one.node, "beta"), one.weight.dims[one.axis]
        if one.node.op_type == "Gemm" and (factor != 1 or list(bias.dims) != [channels]):
            row = np.broadcast_to(np.float32(factor) * numpy_helper.to_array(bias).reshape(-1), [channels])
            one.node.input[2] = fresh_name(f"{bias.name}_row", taken)
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(row), one.node.input[2]))
            others = [attribute for attribute in one.node.attribute if attribute.name != "beta"]
            del one.node.attribute[:]
            one.node.attribute.extend(others)


def _taken_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all values."""
    used = {name for node in all_nodes(graph) for name in (*node.input, *node.output)}
    return used | {tensor.name for tensor in graph.initializer}


def _float_attribute(node: onnx.NodeProto, name: str) -> float:
    return next((attribute.f for attribute in node.attribute if attribute.name == name), 1.0)


def _put_stand_ins(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], folder: Path
) -> dict[str, tuple[onnx.TensorProto, int]]:
    """Replace weights by the largest value of each channel. Return the weights and their axes by name.

    The quantiser needs only these values for its scales, and it copies a model several times. Other readers of a weight
    get the weight. The metadata says that shapes are inferred; otherwise the quantiser would write the model with all
    weights to a file.
    """
    names = {node.name for node in nodes}
    taken = _taken_names(model.graph)
    made: dict[tuple[str, int], str] = {}
    found = {}
    for one in find_weighted(model.graph):
        key = one.weight.name, one.axis
        if one.node.name not in names:
            continue
        if key not in made:
            made[key], weight = fresh_name(f"{one.weight.name}_channels", taken), onnx.TensorProto()
            weight.CopyFrom(one.weight)
            found[made[key]] = weight, one.axis
            largest = along(largest_values(weight_values(weight, folder), one.axis), one.axis, len(weight.dims))
            model.graph.initializer.append(numpy_helper.from_array(largest, made[key]))
        one.node.input[1] = made[key]
    model.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    return found


def _replace_stand_ins(
    graph: onnx.GraphProto, weights: Mapping[str, tuple[onnx.TensorProto, int]], folder: Path
) -> None:
    """Replace each placeholder by its weight in 8 bits, with the scales of the quantiser."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    scales = {node.input[0]: node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    for name, (weight, axis) in weights.items():
        made = name + TENSOR_NAME_QUANT_SUFFIX
        steps = in_steps(weight_values(weight, folder), numpy_helper.to_array(tensors[scales[made]]), axis)
        np.clip(np.rint(steps, out=steps), -128, 127, out=steps)
        tensors[made].CopyFrom(numpy_helper.from_array(steps.astype(np.int8), made))


def _watched(graph: onnx.GraphProto, kept: Collection[str]) -> Iterator[str]:
    for node in _quantised_nodes(graph, kept):
        yield from (node.input[0], node.output[0])


def _positive_values(graph: onnx.GraphProto) -> set[str]:
    """Return values that are never below 0, which can use all 255 steps."""
    found: set[str] = set()
    for node in graph.node:
        reads = node.input[:1] if node.op_type in {"Reshape", "Slice", "Squeeze", "Unsqueeze"} else node.input
        if node.op_type in _NOT_NEGATIVE or (node.op_type in _HAND_ON and found.issuperset(reads)):
            found |= set(node.output)
    return found
