"""Finds the layers with weights. FP16 is useful in them and between them.

Before the first layer there are the model's inputs: pixels, identifiers, positions and masks, which are not scaled for
FP16. After the last one there are boxes, scores, logarithms and comparisons. Both ends cost little in FP32, and no list
of operators would find everything that FP16 can change there. Values between layers are features: training keeps them
in an ordinary range, and `magnitudes` and `exactness` find the exceptions.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.constants import Values
from enginesmith_runtime.onnx_graphs.dataflow import MOVES, Dataflow, has_subgraph

__all__ = ["constant_values", "constants_in_fp32", "layer_names", "looks_trained", "nodes_outside_layers"]

_BEFORE: Final = "it comes before the layers with weights, and FP16 would round the model's inputs"
_BEHIND: Final = "no layer with weights follows (what it reads may be results in FP16)"
_NOWHERE: Final = "the model has no layer with many weights, and FP16 pays only between such layers"
_CONSTANT: Final = "it computes a constant, which costs nothing in FP32"

_WINDOWS: Final = frozenset({"Conv", "ConvTranspose", "DeformConv"})
_MATRICES: Final = frozenset({"Einsum", "Gemm", "MatMul"})
_RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})
_OF_FEATURES: Final = _WINDOWS | _MATRICES | frozenset({"Attention"})
# Operators that belong to the layer before them, because builders fuse them and features stay features.
_ENDS: Final = frozenset(
    {"Add", "BatchNormalization", "Flatten", "LeakyRelu", "PRelu", "Relu", "Reshape", "Squeeze", "Transpose",
     "Unsqueeze"}
)  # fmt: skip
_QUANTISERS: Final = frozenset({"DequantizeLinear", "QuantizeLinear"})
_SHAPE_READERS: Final = frozenset({"Shape", "Size"})
_RANDOM: Final = ("Bernoulli", "Multinomial", "Random")
_MANY_OF_WINDOW: Final = 64
_MANY_OF_FEATURES: Final = 64
_MANY: Final = 4096
_LEAST_DISTINCT: Final = 32
_LARGEST_BIAS: Final = 16.0
_TABLE_RANK: Final = 2


def nodes_outside_layers(flow: Dataflow) -> dict[str, str]:
    """Return the nodes before the first layer with weights or after the last one, with the reason."""
    return _Layers(flow).outside()


def layer_names(flow: Dataflow) -> frozenset[str]:
    """Return the names of the layers with weights."""
    return frozenset(_Layers(flow).names)


def constants_in_fp32(flow: Dataflow, kept: Mapping[str, str], outputs_in_half: Mapping[str, bool]) -> dict[str, str]:
    """Return the nodes that read only constants and stay in FP32.

    A move of weights, such as a Transpose, uses FP16 if all its readers do.

    Args:
        flow: The graph.
        kept: Nodes that already stay in FP32.
        outputs_in_half: For each node, whether it computes in FP16 unless it is kept.
    """
    alone = constant_values(flow)
    outputs = {value.name for value in flow.graph.output} | flow.captured
    exact = set(outputs)
    more: dict[str, str] = {}
    for node in reversed(flow.graph.node):
        is_alone = bool(node.output) and all(name in alone for name in node.output if name)
        stays = node.name in kept or not outputs_in_half[node.name]
        if is_alone and not stays and (node.op_type not in MOVES or not exact.isdisjoint(node.output)):
            more[node.name] = _CONSTANT
            stays = True
        if stays:
            exact.update(node.input)
    return more


class _Layers:
    """The layers of one graph, and the values before and after layers."""

    def __init__(self, flow: Dataflow) -> None:
        self._flow = flow
        self._alone = constant_values(flow)
        self._features: set[str] = set()
        self.names: set[str] = set()
        for node in flow.graph.node:
            if self._is_layer(node):
                self.names.add(node.name)
            elif not any(name in self._features for name in _read(node, flow)):
                continue
            made = [name for name in node.output if flow.is_float(name) or node.op_type in _QUANTISERS]
            self._features.update(made)
        self._wanted: set[str] = set()
        for node in reversed(flow.graph.node):
            if node.name in self.names or not self._wanted.isdisjoint(node.output):
                self._wanted.update(name for name in _read(node, flow) if name not in self._alone)
        # A table alone computes nothing, and its rows are outputs.
        self.names -= {
            node.name for node in flow.graph.node if node.op_type == "Gather" and self._wanted.isdisjoint(node.output)
        }

    def outside(self) -> dict[str, str]:
        """Return the nodes with the reasons."""
        found: dict[str, str] = {}
        ends: set[str] = set()  # values of layers and of nodes that belong to them
        for node in self._flow.graph.node:
            read = [name for name in _read(node, self._flow) if name not in self._alone]
            follows = any(name in self._features for name in read)
            between = follows and not self._wanted.isdisjoint(node.output)
            if node.name in self.names or between or (follows and self._is_end(node, read, ends)):
                ends.update(node.output)
            elif not self._is_constant(node) and node.op_type not in _SHAPE_READERS:
                found[node.name] = _NOWHERE if not self.names else _BEHIND if follows else _BEFORE
        return found

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        return all(name in self._alone for name in node.output if name)

    def _is_end(self, node: onnx.NodeProto, read: list[str], ends: set[str]) -> bool:
        constants = [self._flow.constants.get(name) for name in node.input if name in self._alone]
        fine = node.op_type != "Add" or (len(set(node.input)) > 1 and all(_is_bias(values) for values in constants))
        return node.op_type in _ENDS and fine and all(name in ends for name in read)

    def _is_layer(self, node: onnx.NodeProto) -> bool:
        inputs = list(node.input[:2])
        if node.op_type in _OF_FEATURES and len(inputs) > 1 and all(name in self._features for name in inputs):
            return True
        if node.op_type in _WINDOWS:
            return self._has_weights(inputs[1], _MANY_OF_WINDOW)
        if node.op_type in _MATRICES:
            follows = any(name in self._features for name in inputs)
            return any(self._has_weights(name, _MANY_OF_FEATURES if follows else _MANY + 1) for name in inputs)
        if node.op_type == "Gather":
            shape = self._flow.shapes.get(inputs[0])
            return self._has_weights(inputs[0], _MANY + 1) and shape is not None and len(shape) >= _TABLE_RANK
        return node.op_type in _RECURRENT and self._has_weights(inputs[1], _MANY + 1)

    def _has_weights(self, name: str, least: int) -> bool:
        """Whether a value is a constant of many numbers that look trained."""
        if name not in self._alone or not self._flow.is_float(name):
            return False
        values = self._flow.constants.get(name, self._flow.samples.get(name))
        shape = self._flow.shapes.get(name)
        size = values.size if values is not None else np.prod([0 if one is None else one for one in shape or (0,)])
        # For node results with more than 65,536 numbers, only the shape is known.
        return bool(size >= least) and (values is None or looks_trained(values))


def looks_trained(values: Values) -> bool:
    """Whether numbers have both signs, fractions and many sizes, unlike windows, filter banks and frequencies."""
    signs = bool((values < 0).any()) and bool((values > 0).any())
    return signs and bool((values != values.round()).any()) and np.unique(values).size >= _LEAST_DISTINCT


def _is_bias(values: Values | None) -> bool:
    return values is None or (values.size > 1 and bool((np.abs(values) <= _LARGEST_BIAS).all()))


def constant_values(flow: Dataflow) -> set[str]:
    """Return the names of all values that follow from constants alone, of any dtype."""
    alone = set(flow.weights)
    for node in flow.graph.node:
        inputs = [name for name in node.input if name]
        follows = bool(inputs) and all(name in alone for name in inputs)
        fixed = not has_subgraph(node) and not node.op_type.startswith(_RANDOM)
        if node.op_type == "Constant" or (follows and fixed):
            alone.update(name for name in node.output if name)
    return alone


def _read(node: onnx.NodeProto, flow: Dataflow) -> list[str]:
    """Return the FP32 values that a node reads. Quantised values count as their FP32 values."""
    quantised = node.input[:1] if node.op_type in _QUANTISERS else ()
    return [name for name in node.input if flow.is_float(name) or name in quantised]
