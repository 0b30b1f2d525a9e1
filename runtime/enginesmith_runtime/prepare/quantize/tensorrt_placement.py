"""Places QuantizeLinear and DequantizeLinear so that TensorRT fuses them.

    value ── Q ── DQ ──┐                    value ── Q ── DQ ── Conv ── Add ── ...
    8-bit weight ─ DQ ─┴─ Conv ── ...       shortcut ────── Q ── DQ ────┘

The model has its final float type: cast to FP16 or BF16, or FP32. A pair has the float type of its operator's weight,
so there is no Cast between DequantizeLinear and the operator. TensorRT's kernels are symmetric: zero points are 0, and
INT8 uses -127 to 127. Biases stay floats, which TensorRT adds before it rounds.

Without the pair at an Add's shortcut, the convolution before the Add must write floats. ResNet-50 on an H200 is then
1.5 to 1.9 times slower than in FP16, and with the pair 1.4 times faster.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Precision
from enginesmith_runtime.onnx_graphs.graph import all_nodes, fresh_name
from enginesmith_runtime.prepare.quantize.ranges_by_value import RangesByValue
from enginesmith_runtime.prepare.quantize.weight_values import in_steps, largest_values, weight_values
from enginesmith_runtime.prepare.quantize.weighted_nodes import WeightedNode, find_shortcuts, find_weighted

__all__ = ["SMALLEST_FP16_SCALE", "place", "tensors_to_watch"]

SMALLEST_FP16_SCALE: Final = 2.0**-14
"""Smaller scales are subnormal or 0 in FP16, and the parser refuses 0."""

_SMALLEST_SCALE: Final = 2.0**-60  # so that the product of two scales is a normal FP32 number
_TYPES: Final[Mapping[Precision, tuple[int, float]]] = {
    Precision.INT8: (TensorProto.INT8, 127.0),
    Precision.FP8: (TensorProto.FLOAT8E4M3FN, 448.0),
}

_Floats = npt.NDArray[np.float32]


def tensors_to_watch(model: onnx.ModelProto, kept: Collection[str] = ()) -> tuple[str, ...]:
    """Return the values whose ranges `place` needs, in the graph's order: inputs of weighted nodes, and shortcuts.

    Args:
        model: A normal form.
        kept: Nodes that keep their type. With more kept nodes, `place` needs no other ranges.
    """
    inputs = {one.node.name: one.value for one in find_weighted(model.graph) if one.node.name not in kept}
    shortcuts = find_shortcuts(model.graph, inputs.keys())
    for node in model.graph.node:
        if node.name in shortcuts and node.name not in kept:
            inputs[node.name] = node.input[shortcuts[node.name]]
    return tuple(dict.fromkeys(inputs[node.name] for node in model.graph.node if node.name in inputs))


def place(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    *,
    kept: Collection[str] = (),
    kind: Precision = Precision.INT8,
    weights: Path = Path(),
) -> onnx.ModelProto:
    """Return the model with its weighted nodes and residual shortcuts in 8 bits. Other weights in files stay there.

    Args:
        model: A normal form, cast or not, in topological order, with named nodes and opset 19 or later.
        ranges: Largest absolute value to represent, by name of the value in the model before the cast.
        kept: Nodes that keep their type. The shortcut of a kept Add is not quantised.
        kind: INT8, with one scale for each channel of a weight; or FP8 (E4M3), with one scale for each tensor.
        weights: Folder of the external weights.

    Raises:
        enginesmith_contract.errors.ModelError: `RangeMissing` if a value has no range above 0.
    """
    placed = onnx.ModelProto()
    placed.CopyFrom(model)
    _Placement(placed.graph, RangesByValue(model.graph, ranges), kind, weights).rewrite(frozenset(kept))
    return placed


class _Placement:
    """Rewrites a main graph in place."""

    def __init__(self, graph: onnx.GraphProto, ranges: RangesByValue, kind: Precision, folder: Path) -> None:
        self._graph = graph
        self._folder = folder
        self._ranges = ranges
        self._dtype, self._largest = _TYPES[kind]
        self._has_channels = kind is Precision.INT8
        self._taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        for node in all_nodes(graph):
            self._taken |= {node.name, *node.input, *node.output}
        self._nodes: list[onnx.NodeProto] = []
        self._twins: dict[str, str] = {}  # value or weight and axis to its copy after DequantizeLinear

    def rewrite(self, kept: frozenset[str]) -> None:
        weighted = {one.node.name: one for one in find_weighted(self._graph) if one.node.name not in kept}
        shortcuts = find_shortcuts(self._graph, weighted.keys())
        types = {one.node.output[0]: one.weight.data_type for one in weighted.values()}
        for node in self._graph.node:
            if node.name in weighted:
                one = weighted[node.name]
                node.input[0] = self._quantised(one.value, one.weight.data_type)
                node.input[1] = self._quantised_weight(one)
            elif node.name in shortcuts and node.name not in kept:
                index = shortcuts[node.name]
                node.input[index] = self._quantised(node.input[index], types[node.input[1 - index]])
            self._nodes.append(node)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        self._drop_unread()

    def _quantised(self, name: str, float_type: int) -> str:
        """Return the value's copy after Q and DQ. Add the pair before the current node if there is none."""
        if name not in self._twins:
            scale = self._scales(np.float32(self._ranges.of(name)), float_type)
            eight_bits = fresh_name(f"{name}_quantized", self._taken)
            parameters = self._parameters(name, scale, float_type)
            self._add("QuantizeLinear", [name, *parameters], eight_bits)
            self._twins[name] = self._dequantised(name, [eight_bits, *parameters])
        return self._twins[name]

    def _quantised_weight(self, one: WeightedNode) -> str:
        axis = one.axis if self._has_channels else None
        key = f"{one.weight.name} {axis}"
        if key not in self._twins:
            values = weight_values(one.weight, self._folder)
            scale = self._scales(largest_values(values, axis), one.weight.data_type)
            eight_bits = fresh_name(f"{one.weight.name}_quantized", self._taken)
            self._store(self._rounded(in_steps(values, scale, axis)), eight_bits)
            parameters = self._parameters(one.weight.name, scale, one.weight.data_type)
            self._twins[key] = self._dequantised(one.weight.name, [eight_bits, *parameters], axis)
        return self._twins[key]

    def _dequantised(self, name: str, inputs: list[str], axis: int | None = None) -> str:
        made = fresh_name(f"{name}_dequantized", self._taken)
        self._add("DequantizeLinear", inputs, made, axis)
        return made

    def _add(self, operator: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        node = helper.make_node(operator, inputs, [output], name=fresh_name(f"{output}_node", self._taken))
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._nodes.append(node)

    def _scales(self, largest: "_Floats | np.float32", float_type: int) -> _Floats:
        """Return the value of one step in the float type."""
        smallest = SMALLEST_FP16_SCALE if float_type == TensorProto.FLOAT16 else _SMALLEST_SCALE
        exact = np.maximum(np.asarray(largest, dtype=np.float32) / self._largest, smallest)
        return np.asarray(exact.astype(helper.tensor_dtype_to_np_dtype(float_type)), dtype=np.float32)

    def _rounded(self, steps: _Floats) -> npt.NDArray[np.generic]:
        """Return the 8-bit numbers. `steps` is changed in place, so that a large weight is not copied."""
        if self._has_channels:
            np.rint(steps, out=steps)
        np.clip(steps, -self._largest, self._largest, out=steps)
        return np.asarray(steps.astype(helper.tensor_dtype_to_np_dtype(self._dtype)))

    def _parameters(self, name: str, scale: _Floats, float_type: int) -> list[str]:
        """Store a scale and its zero points. Return their names."""
        names = [fresh_name(f"{name}_{part}", self._taken) for part in ("scale", "zero_point")]
        self._store(scale.astype(helper.tensor_dtype_to_np_dtype(float_type)), names[0])
        self._store(np.zeros(scale.shape, helper.tensor_dtype_to_np_dtype(self._dtype)), names[1])
        return names

    def _store(self, array: npt.NDArray[np.generic], name: str) -> None:
        self._graph.initializer.append(numpy_helper.from_array(array, name))

    def _drop_unread(self) -> None:
        read = {name for node in all_nodes(self._graph) for name in node.input}
        read |= {value.name for value in self._graph.output}
        weights = self._graph.initializer
        unread = {tensor.name for tensor in weights} - read
        for index in reversed([index for index, tensor in enumerate(weights) if tensor.name in unread]):
            del weights[index]
        given = [value for value in self._graph.input if value.name not in unread]
        del self._graph.input[:]
        self._graph.input.extend(given)
