"""The rewriting itself: Casts where types meet, weights in the type that their readers want."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

from enginesmith_runtime.onnx_graphs.graph import all_nodes, subgraphs
from enginesmith_runtime.prepare.cast_rules import CastRules
from enginesmith_runtime.prepare.weights import WeightWriter

__all__ = ["Rewriter", "hoist_constants"]

_FIRST_IR_WITH_FREE_WEIGHTS = 4


def hoist_constants(model: onnx.ModelProto) -> None:
    """Turn Constant nodes with FP32 values into initializers: PaddlePaddle's exports keep their weights in nodes."""
    # Up to IR version 3 every weight had to be an input too.
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_FREE_WEIGHTS)
    graph = model.graph
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        value = _constant_value(node)
        if value is None or value.data_type != TensorProto.FLOAT:
            continue
        graph.initializer.add().CopyFrom(value)
        graph.initializer[-1].name = node.output[0]
        del graph.node[index]


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name == "value":
            return attribute.t
        if attribute.name == "value_float":
            return helper.make_tensor("", TensorProto.FLOAT, [], [attribute.f])
        if attribute.name == "value_floats":
            return helper.make_tensor("", TensorProto.FLOAT, [len(attribute.floats)], attribute.floats)
    return None


class Rewriter:
    """Rewrites the main graph in place; its nodes are in topological order before and after."""

    def __init__(self, graph: onnx.GraphProto, rules: CastRules, kept: frozenset[str], writer: WeightWriter) -> None:
        self._graph = graph
        self._rules = rules
        self._kept = kept
        self._writer = writer
        self._weights = {tensor.name for tensor in graph.initializer}
        # Outputs, and what inner graphs read by name, keep their name and FP32.
        self._pinned = {value.name for value in graph.output} | set(_captured(graph))
        self._half: set[str] = set()
        self._twins: dict[tuple[str, int], str] = {}  # (value, type) to the name of the value in that type
        self._names = set(rules.types) | {name for node in graph.node for name in (*node.input, *node.output)}
        self._names |= {node.name for node in graph.node}
        self._readers: dict[str, set[int]] = {}  # weight to the types that are read
        self._nodes: list[onnx.NodeProto] = []

    def rewrite(self) -> None:
        """Rewrite every node, then the weights."""
        for node in self._graph.node:
            convert = node.name not in self._kept and self._rules.is_convertible(node)
            half = self._rules.half_inputs(node) if convert else frozenset()
            outputs = self._rules.half_outputs(node) if convert else frozenset()
            for index, name in enumerate(node.input):
                node.input[index] = self._typed(name, TensorProto.FLOAT16 if index in half else TensorProto.FLOAT)
            self._half.update(node.output[index] for index in outputs)
            self._nodes.append(node)
            self._nodes.extend(self._pin(node))
        self._convert_weights()
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        # Old types would contradict the new ones; parsers and runtimes infer them again.
        del self._graph.value_info[:]

    def _typed(self, name: str, wanted: int) -> str:
        """Return the name of a value in the wanted type; adds a Cast before the node at hand where there is none."""
        if not name or self._rules.types.get(name) != TensorProto.FLOAT:
            return name
        if name in self._weights:
            self._readers.setdefault(name, set()).add(wanted)
            return name if wanted == TensorProto.FLOAT else self._half_weight(name)
        have = TensorProto.FLOAT16 if name in self._half else TensorProto.FLOAT
        if have == wanted:
            return name
        key = (name, wanted)
        if key not in self._twins:
            self._twins[key] = self._fresh(f"{name}_{'fp16' if wanted == TensorProto.FLOAT16 else 'fp32'}")
            self._nodes.append(self._cast(name, self._twins[key], wanted))
        return self._twins[key]

    def _pin(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Give an FP16 output that others know by name a new name, and its own name to an FP32 copy."""
        for index, name in enumerate(node.output):
            if name not in self._pinned or name not in self._half:
                continue
            inner = self._fresh(f"{name}_fp16")
            node.output[index] = inner
            self._half.discard(name)
            self._twins[name, int(TensorProto.FLOAT16)] = inner
            yield self._cast(inner, name, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, wanted: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [source], [target], name=self._fresh(f"cast_{target}"), to=wanted)

    def _half_weight(self, name: str) -> str:
        key = (name, int(TensorProto.FLOAT16))
        if key not in self._twins:
            self._twins[key] = self._fresh(f"{name}_fp16")
        return self._twins[key]

    def _convert_weights(self) -> None:
        """Convert in place what only FP16 nodes read; a weight that both read exists in both types."""
        inputs = [value.name for value in self._graph.input]
        for tensor in list(self._graph.initializer):
            name = tensor.name
            readers = self._readers.get(name, set())
            if TensorProto.FLOAT16 not in readers:
                continue
            if TensorProto.FLOAT in readers or name in self._pinned:
                copy = self._graph.initializer.add()
                copy.CopyFrom(tensor)
                self._writer.to_half(copy, self._half_weight(name))
                continue
            self._writer.to_half(tensor, self._half_weight(name))
            if name in inputs:
                del self._graph.input[inputs.index(name)]
                inputs.remove(name)

    def _fresh(self, name: str) -> str:
        number = 0
        while (made := f"{name}_{number}" if number else name) in self._names:
            number += 1
        self._names.add(made)
        return made


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that inner graphs read; those that are their own do no harm."""
    for node in graph.node:
        for inner in subgraphs(node):
            yield from (value.name for value in inner.output)
            for each in all_nodes(inner):
                yield from each.input
