"""Finds differences of results of the same layers. FP16 rounds away the difference of nearly equal results.

Examples are Siamese encoders, neighbouring frames and two actions of one state. For nearly equal inputs, the model's
output is this difference, which may be smaller than FP16's steps. The nodes that produce both operands stay in FP32,
and so do those that compute only with the difference.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, MOVES, Dataflow, has_subgraph, int_attribute
from enginesmith_runtime.prepare.fp16.layers import constant_values, layer_names

if TYPE_CHECKING:
    from enginesmith_runtime.onnx_graphs.constants import Values

__all__ = ["nodes_before_differences"]

_DIFFERS: Final = (
    "results of the same layers are taken from each other, and FP16 rounds away how nearly equal ones differ"
)

# The result has elements of the input, at any position.
_SAME_KIND: Final = frozenset(
    {
        "Cast", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape",
        "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_SELECTS: Final = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
_UNCHANGED: Final = frozenset({"Cast", "Dropout", "Identity"})
_PRODUCTS: Final = frozenset({"Einsum", "Gemm", "MatMul", "Mul"})
_OF_PRODUCTS: Final = MOVES | {"Div", "Mul", "Neg", "ReduceMean", "ReduceSum"}
_GATES: Final = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})  # a small difference has little effect on these
_HANDS_ON: Final = frozenset({"Abs", "Neg", "Relu", "Sqrt"})
_JOINS: Final = frozenset({"Div", "Einsum", "Gemm", "MatMul", "Mul"})  # as small as one operand
_COLUMNS_FIRST: Final = frozenset({"Conv", "ConvTranspose"})
_COLUMNS_LAST: Final = frozenset({"GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN"})
_PAIR: Final = 2
_AXES: Final = 3
_LEAST_WEIGHTS: Final = 64
_SAMPLED: Final = 256
_NEARLY_EQUAL: Final = 2.0**-5


def nodes_before_differences(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that must stay in FP32 for this, with the reason.

    A difference counts only if an output shows it. If it is added to other values, its error is small relative to them.
    """
    twins = _Twins(flow)
    differences: dict[str, onnx.NodeProto] = {}
    small: dict[str, set[str]] = {}  # value computed only from differences, to these
    shown: dict[str, set[str]] = {}  # value with elements of such values, to the differences
    gates: set[str] = set()
    for node in flow.graph.node:
        twins.note(node)
        read = flow.floats(node)
        follows = [name for name in read if name in small]
        joins = node.op_type in _JOINS and not gates.issuperset(follows)
        if twins.are_taken_away(node):
            differences[node.output[0]] = node
            small[node.output[0]] = {node.output[0]}
        elif follows and (len(follows) == len(read) or joins):
            small |= dict.fromkeys(node.output, set[str]().union(*(small[name] for name in follows)))
            gates.update(node.output if node.op_type in _GATES or gates.issuperset(follows) else ())
        elif node.op_type in MOVES | _HANDS_ON:
            found = (shown.get(name, small.get(name, set())) for name in read)
            shown |= dict.fromkeys(node.output, set[str]().union(*found))
    outputs = [value.name for value in flow.graph.output]
    answers = set[str]().union(*(shown.get(name, small.get(name, set())) for name in outputs))
    kept: dict[str, str] = {}
    for name in answers:
        reason = f"its result goes to {differences[name].name}{CAUSE}{_DIFFERS}"
        before = flow.upstream(list(differences[name].input), lambda node: not has_subgraph(node))
        kept |= {node.name: reason for node in before}
    for node in flow.graph.node:
        if any(not answers.isdisjoint(small.get(name, ())) for name in node.output):
            kept[node.name] = _DIFFERS
    return kept


class _Twins:
    """Finds values that are computed in the same way from different parts of the inputs, node by node."""

    def __init__(self, flow: Dataflow) -> None:
        self._flow = flow
        self._alone = constant_values(flow)
        self._layers = layer_names(flow)
        self._numbers: dict[tuple[object, ...], int] = {}
        self._kinds: dict[str, int] = {}
        self._sources: dict[str, str] = {}  # value to its source
        self._deep: set[str] = set()  # results of layers, and values computed from them
        self._features: dict[str, int] = {}  # value to the axis along which a layer's weights differ
        self._weights: dict[tuple[object, ...], list[tuple[str, Values]]] = {}
        for value in flow.graph.input:
            shape = flow.shapes.get(value.name, ())
            self._kinds[value.name] = self._number("input", value.type.tensor_type.elem_type, shape)

    def note(self, node: onnx.NodeProto) -> None:
        """Record a node."""
        data = [name for name in node.input if name and name not in self._alone]
        if node.name in self._layers or any(name in self._deep for name in data):
            self._deep.update(node.output)
        self._note_features(node, data)
        same = self._is_same_kind(node, data)
        attributes = (
            [node.name] if has_subgraph(node) else sorted(str(one.SerializeToString()) for one in node.attribute)
        )
        inputs = [self._kind(name) for name in node.input]
        for index, name in enumerate(node.output):
            kind = self._kind(data[0]) if same else self._number(node.op_type, node.domain, index, *attributes, *inputs)
            if node.op_type == "LogSoftmax" and name in self._deep:
                kind = self._number(node.op_type)  # equal in nearly equal copies of a model
            self._kinds[name] = kind
            if same and node.op_type in _UNCHANGED:
                self._sources[name] = self._source(data[0])

    def are_taken_away(self, node: onnx.NodeProto) -> bool:
        """Whether a node subtracts one twin from another, or a product of two from a value of similar size."""
        operands = _operands(node, self._flow)
        if len(operands) == _PAIR and self._are_twins(*operands):
            return not any(self._is_product(name) for name in operands)
        return bool(operands) and any(self._is_likeness(name) for name in operands)

    def _are_twins(self, one: str, other: str) -> bool:
        known = one in self._deep and other in self._deep and self._source(one) != self._source(other)
        return known and self._kind(one) == self._kind(other)

    def _is_product(self, name: str) -> bool:
        """Whether a value is a product of two independent values, as in a rotation."""
        before = self._flow.upstream([name], lambda one: one.op_type in _SAME_KIND | {"Mul"})
        made = next((each for each in before if each.op_type == "Mul"), None)
        if made is None or len(self._flow.floats(made)) < _PAIR:
            return False
        one, other = made.input
        return not any(
            each in {name for before in self._flow.upstream([last], lambda _: True) for name in before.input}
            for each, last in ((one, other), (other, one))
        )

    def _is_likeness(self, name: str) -> bool:
        """Whether a value is a product of twins, such as a cosine."""
        before = list(self._flow.upstream([name], lambda one: one.op_type in _OF_PRODUCTS | _PRODUCTS))
        pairs = [self._flow.floats(each) for each in before if each.op_type in _PRODUCTS]
        return any(len(pair) > 1 and self._are_twins(pair[0], pair[1]) for pair in pairs)

    def _is_same_kind(self, node: onnx.NodeProto, data: list[str]) -> bool:
        """Whether a result has elements of the same kind as the input (for results of layers: of all columns)."""
        if not data:
            return False
        if node.op_type == "Concat":
            return len({self._kind(name) for name in node.input}) == 1
        if node.op_type not in _SAME_KIND or data[0] != node.input[0]:
            return False
        if node.op_type not in _SELECTS or data[0] not in self._deep:
            return node.op_type not in _SELECTS
        axes = self._axes(node)
        return bool(axes) and self._features.get(data[0]) not in {None, *axes}

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        """Return the axes along which a node selects, or nothing if they are unknown."""
        rank = len(self._flow.shapes.get(node.input[0], ()))
        if node.op_type == "Slice" and len(node.input) > _AXES:
            axes = self._flow.constants.get(node.input[_AXES])
            found = [] if axes is None else [int(axis) for axis in axes]
        elif node.op_type == "Slice":
            starts = self._flow.constants.get(node.input[1]) if len(node.input) > 1 else None
            attribute = [list(one.ints) for one in node.attribute if one.name == "axes"]
            found = attribute[0] if attribute else list(range(0 if starts is None else starts.size))
        else:
            found = [] if node.op_type == "GatherND" else [int_attribute(node, "axis", 0)]
        return [axis % rank for axis in found] if rank else []

    def _note_features(self, node: onnx.NodeProto, data: list[str]) -> None:
        """Record the axis of a result along which elements come from different weights."""
        shape = self._flow.shapes.get(node.output[0]) if node.output else None
        if shape is None:
            return
        if node.name in self._layers and node.op_type in _COLUMNS_FIRST | _COLUMNS_LAST:
            weights_first = node.op_type == "MatMul" and node.input[0] in self._alone
            self._features[node.output[0]] = (
                1 if node.op_type in _COLUMNS_FIRST else max(len(shape) - (2 if weights_first else 1), 0)
            )
            return
        source = next((name for name in data if name in self._features), None)
        if source is None:
            return
        axis, before = self._features[source], self._flow.shapes[source]
        size = before[axis]
        order = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
        if node.op_type == "Transpose":
            axis = (order or list(reversed(range(len(before))))).index(axis)
        elif len(shape) != len(before) or shape[axis] != size:
            found = [number for number, each in enumerate(shape) if each == size and size is not None]
            if len(found) != 1:
                return
            [axis] = found
        self._features[node.output[0]] = axis

    def _kind(self, name: str) -> int:
        if name not in self._kinds:
            self._kinds[name] = self._number("constant", self._constant(name))
        return self._kinds[name]

    def _constant(self, name: str) -> object:
        """Return a key for a constant. Nearly equal weights get the key of the first ones."""
        values = self._flow.constants.get(name, self._flow.samples.get(name))
        if values is None or not values.size:
            return name
        if values.size < _LEAST_WEIGHTS:
            return values.tobytes()
        sample = values[:: max(1, values.size // _SAMPLED)]
        known = self._weights.setdefault((*self._flow.shapes.get(name, ()), sample.size), [])
        for first, each in known:
            if np.linalg.norm(sample - each) <= _NEARLY_EQUAL * np.linalg.norm(each):
                return first
        known.append((name, sample))
        return name

    def _number(self, *key: object) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _source(self, name: str) -> str:
        return self._sources.get(name, name)


def _operands(node: onnx.NodeProto, flow: Dataflow) -> list[str]:
    """Return the operands of a difference without signs, or nothing if the node is not a difference."""
    read = flow.floats(node)
    if node.op_type == "Sub":
        return read
    if node.op_type not in {"Add", "Sum"}:
        return []
    negated = {name: _negated(name, flow) for name in read}
    return [negated[name] or name for name in read] if any(negated.values()) else []


def _negated(name: str, flow: Dataflow) -> str:
    """Return the value whose negative a value is, or ""."""
    made = flow.producers.get(name)
    if made is None or made.op_type not in {"Div", "Mul", "Neg"}:
        return ""
    factors = [flow.constants[one] for one in made.input if one in flow.constants]
    negative = made.op_type == "Neg" or any(bool((one < 0).all()) for one in factors)
    return next(iter(flow.floats(made)), "") if negative else ""
