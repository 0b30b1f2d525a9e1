"""Rules for a quantised graph. TensorRT's parser reports a violation late or, worse, accepts it silently.

TensorRT builds UINT8 as INT8, it builds a scale of infinity, and a Cast after DequantizeLinear prevents the fusion. So
each rule is checked here, and a violation is reported with its node.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from enginesmith_runtime.onnx_graphs.dataflow import int_attribute
from enginesmith_runtime.onnx_graphs.graph import all_nodes, is_onnx_domain, label, opset_of
from enginesmith_runtime.prepare.quantize.tensorrt_placement import SMALLEST_FP16_SCALE
from enginesmith_runtime.prepare.quantize.weighted_nodes import WEIGHTED, channel_axis

__all__ = ["check_rules"]

_PAIR: Final = frozenset({"DequantizeLinear", "QuantizeLinear"})
_ACTIVATIONS: Final = frozenset({TensorProto.INT8, TensorProto.FLOAT8E4M3FN})
_WEIGHTS: Final = _ACTIVATIONS | {TensorProto.INT4, TensorProto.FLOAT4E2M1}
_OPSET_OF_TYPE: Final[Mapping[int, int]] = {
    TensorProto.INT8: 13,  # with an axis; 10 without one
    TensorProto.FLOAT8E4M3FN: 19,
    TensorProto.INT4: 21,
    TensorProto.FLOAT4E2M1: 23,
}
_OPSET_OF_NARROW_SCALES: Final = 19
_OPSET_OF_BF16_CONV: Final = 22
_NARROW: Final = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def check_rules(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return a sentence for each violation of a rule of TensorRT in a quantised model.

    Args:
        model: Model with loaded weights.
    """
    view = _View(model)
    rules = (_order, _names_of_dimensions, _types, _zero_points, _scales, _opsets, _casts, _weights, _activations)
    return tuple(dict.fromkeys(sentence for rule in rules for sentence in rule(view)))


@dataclass(frozen=True)
class _View:
    """A view of a model for the rules."""

    model: onnx.ModelProto

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def tensors(self) -> dict[str, TensorProto]:
        """Constants by name: initializers and Constant nodes."""
        nodes = [node for node in self.graph.node if node.op_type == "Constant"]
        values = {
            node.output[0]: attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")
        }
        return {tensor.name: tensor for tensor in self.graph.initializer} | values

    @cached_property
    def pairs(self) -> list[onnx.NodeProto]:
        return [node for node in all_nodes(self.graph) if node.op_type in _PAIR]

    def array(self, name: str) -> npt.NDArray[np.generic] | None:
        tensor = self.tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def type_of(self, node: onnx.NodeProto) -> int:
        """Return the 8-bit type of a Q or DQ, or 0 if the node does not have it."""
        zero_point = _zero_point(node)
        if zero_point in self.tensors:
            return int(self.tensors[zero_point].data_type)
        if node.op_type == "QuantizeLinear":
            return int_attribute(node, "output_dtype", 0) or int(TensorProto.UINT8)
        if node.input[0] in self.tensors:
            return int(self.tensors[node.input[0]].data_type)
        maker = self.makers.get(node.input[0])
        return self.type_of(maker) if maker is not None and maker.op_type == "QuantizeLinear" else 0

    def weight_of(self, node: onnx.NodeProto) -> TensorProto | None:
        """Return the constant that a Q or DQ belongs to, or None if it belongs to a value."""
        name = node.input[0]
        while (maker := self.makers.get(name)) is not None and maker.op_type in _PAIR:
            name = maker.input[0]
        return self.tensors.get(name)

    def weighted(self) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto | None, onnx.NodeProto | None]]:
        """Yield each weighted node with the DequantizeLinear of its value and of its weight."""
        for node in self.graph.node:
            if node.op_type in WEIGHTED and is_onnx_domain(node.domain):
                value, weight = (self._dequantize(name) for name in node.input[:2])
                yield node, value, weight

    def _dequantize(self, name: str) -> onnx.NodeProto | None:
        maker = self.makers.get(name)
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None


def _order(view: _View) -> Iterator[str]:
    known = {value.name for value in view.graph.input} | {tensor.name for tensor in view.graph.initializer}
    for node in view.graph.node:
        late = next((name for name in node.input if name in view.makers and name not in known), None)
        if late is not None:
            yield f"{label(node)} is before {label(view.makers[late])}, whose output it reads: sort the nodes"
        known |= set(node.output)


def _names_of_dimensions(view: _View) -> Iterator[str]:
    for value in (*view.graph.input, *view.graph.output):
        names = [dimension.dim_param for dimension in value.type.tensor_type.shape.dim if dimension.dim_param]
        for name in dict.fromkeys(one for one in names if names.count(one) > 1):
            yield f"{value.name} has several dimensions named {name!r}, which builders hold to one size: clear the name"


def _types(view: _View) -> Iterator[str]:
    for node in view.pairs:
        if not is_onnx_domain(node.domain):
            yield f"{label(node)} ({node.op_type}) is of the domain {node.domain}: use ONNX's own operator"
        dtype = view.type_of(node)
        allowed = _ACTIVATIONS if view.weight_of(node) is None else _WEIGHTS
        if dtype and dtype not in allowed:
            fix = "leave a bias in float" if dtype == TensorProto.INT32 else "use INT8 or FLOAT8E4M3FN"
            yield f"{label(node)} ({node.op_type}) has the type {_name(dtype)}: {fix}"


def _zero_points(view: _View) -> Iterator[str]:
    for node in view.pairs:
        name = _zero_point(node)
        if not name:
            continue
        zeros = view.array(name)
        if zeros is None:
            yield f"{label(node)} ({node.op_type}) computes its zero point, which must be a constant"
        elif np.any(zeros.astype(np.float32) != 0):
            yield f"{label(node)} ({node.op_type}) has a zero point other than 0: quantise symmetrically"


def _scales(view: _View) -> Iterator[str]:
    for node in view.pairs:
        array = view.array(node.input[1])
        if array is None:
            yield f"{label(node)} ({node.op_type}) computes its scale, which must be a constant"
            continue
        scales = array.astype(np.float64)
        bad = scales[~(np.isfinite(scales) & (scales > 0))]
        if bad.size:
            yield f"{label(node)} ({node.op_type}) has a scale of {bad.flat[0]:g}: scales are finite and above 0"
        elif view.tensors[node.input[1]].data_type == TensorProto.FLOAT16 and np.any(scales < SMALLEST_FP16_SCALE):
            yield f"{label(node)} ({node.op_type}) has an FP16 scale of {scales.min():g}: the least is 2^-14"


def _opsets(view: _View) -> Iterator[str]:
    opset = opset_of(view.model)
    for node in view.pairs:
        scale = view.tensors.get(node.input[1])
        needed = _OPSET_OF_TYPE.get(view.type_of(node), 0) if scale is None or scale.dims else 10
        needed = max(needed, _OPSET_OF_TYPE.get(view.type_of(node), 0) if view.type_of(node) != TensorProto.INT8 else 0)
        if scale is not None and scale.data_type in _NARROW:
            needed = max(needed, _OPSET_OF_NARROW_SCALES)
        if int_attribute(node, "block_size", 0):
            needed = max(needed, 21)
        if opset < needed:
            yield f"{label(node)} ({node.op_type}) needs opset {needed} and the model has {opset}"


def _casts(view: _View) -> Iterator[str]:
    for node in view.graph.node:
        maker = view.makers.get(node.input[0]) if node.op_type == "Cast" else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            yield f"{label(node)} (Cast) is after DequantizeLinear {label(maker)}: give its scale the Cast's type"


def _weights(view: _View) -> Iterator[str]:
    for node, value, weight in view.weighted():
        tensor = None if weight is None else view.weight_of(weight)
        if weight is None or tensor is None:
            continue
        dtype, others = view.type_of(weight), 0 if value is None else view.type_of(value)
        if others and dtype in _ACTIVATIONS and dtype != others:
            both = f"{_name(dtype)} weights and {_name(others)} values"
            yield f"{label(node)} ({node.op_type}) has {both}: they must have one type"
        scale = view.array(weight.input[1])
        if scale is None or dtype != TensorProto.INT8 or int_attribute(weight, "block_size", 0):
            continue
        axis, given = channel_axis(node, len(tensor.dims)), int_attribute(weight, "axis", 1)
        if not scale.ndim:
            yield f"{label(node)} ({node.op_type}) has one scale for its whole weight: give each channel its own"
        elif axis is not None and given % len(tensor.dims) != axis:
            yield f"{label(node)} ({node.op_type}) has its scales along axis {given}: output channels are axis {axis}"


def _activations(view: _View) -> Iterator[str]:
    for node in view.pairs:
        scale = view.array(node.input[1])
        if scale is not None and scale.size > 1 and view.weight_of(node) is None:
            yield f"{label(node)} ({node.op_type}) has a scale for each channel of a value: values have one"


def _zero_point(node: onnx.NodeProto) -> str:
    """Return the name of a zero point, or "" if a Q or DQ has none."""
    return next(iter(node.input[2:]), "")


def _name(dtype: int) -> str:
    return str(TensorProto.DataType.Name(dtype))
