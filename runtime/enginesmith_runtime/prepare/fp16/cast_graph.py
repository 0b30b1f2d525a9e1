"""Rewrites the graph: adds Casts between different types, and converts weights to the type of their readers."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

from enginesmith_runtime.onnx_graphs.graph import all_nodes, fresh_name, subgraphs
from enginesmith_runtime.prepare.fp16.cast_rules import CastRules
from enginesmith_runtime.prepare.fp16.weights import WeightWriter

__all__ = ["Rewriter"]


class Rewriter:
    """Rewrites the main graph in place. Its nodes are in topological order before and after."""

    def __init__(self, graph: onnx.GraphProto, rules: CastRules, kept: frozenset[str], writer: WeightWriter) -> None:
        self._graph = graph
        self._rules = rules
        self._narrow = rules.narrow.dtype
        self._suffix = rules.narrow.title.lower()
        self._kept = kept
        self._writer = writer
        self._weights = {tensor.name for tensor in graph.initializer}
        # Outputs, and values that inner graphs read by name, keep their name and FP32.
        self._pinned = {value.name for value in graph.output} | set(_captured(graph))
        self._half: set[str] = set()
        self._twins: dict[tuple[str, int], str] = {}  # (value, type) to the name of the value in that type
        self._names = set(rules.types) | {name for node in graph.node for name in (*node.input, *node.output)}
        self._names |= {node.name for node in graph.node}
        self._readers: dict[str, set[int]] = {}  # weight to the types that are read
        self._nodes: list[onnx.NodeProto] = []

    def rewrite(self) -> frozenset[str]:
        """Rewrite every node, then the weights. Return the values that are now FP16 or BF16."""
        for node in self._graph.node:
            convert = node.name not in self._kept and self._rules.is_convertible(node)
            half = self._rules.half_inputs(node) if convert else frozenset()
            outputs = self._rules.half_outputs(node) if convert else frozenset()
            for index, name in enumerate(node.input):
                node.input[index] = self._typed(name, self._narrow if index in half else TensorProto.FLOAT)
            self._half.update(node.output[index] for index in outputs)
            self._nodes.append(node)
            self._nodes.extend(self._pin(node))
        self._convert_weights()
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        # Remove old types, which would contradict the new ones. Parsers and runtimes infer them again.
        del self._graph.value_info[:]
        return frozenset(self._half | {name for (_, dtype), name in self._twins.items() if dtype == self._narrow})

    def _typed(self, name: str, wanted: int) -> str:
        """Return the name of a value in the wanted type. Add a Cast before the current node if there is none."""
        if not name or self._rules.types.get(name) != TensorProto.FLOAT:
            return name
        if name in self._weights:
            self._readers.setdefault(name, set()).add(wanted)
            return name if wanted == TensorProto.FLOAT else self._half_weight(name)
        have = self._narrow if name in self._half else TensorProto.FLOAT
        if have == wanted:
            return name
        key = (name, wanted)
        if key not in self._twins:
            self._twins[key] = fresh_name(
                f"{name}_{'fp32' if wanted == TensorProto.FLOAT else self._suffix}", self._names
            )
            self._nodes.append(self._cast(name, self._twins[key], wanted))
        return self._twins[key]

    def _pin(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Rename an FP16 output that is used by name, and give its name to an FP32 copy."""
        for index, name in enumerate(node.output):
            if name not in self._pinned or name not in self._half:
                continue
            inner = fresh_name(f"{name}_{self._suffix}", self._names)
            node.output[index] = inner
            self._half.discard(name)
            self._twins[name, self._narrow] = inner
            yield self._cast(inner, name, TensorProto.FLOAT)

    def _cast(self, source: str, target: str, wanted: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [source], [target], name=fresh_name(f"cast_{target}", self._names), to=wanted)

    def _half_weight(self, name: str) -> str:
        key = (name, self._narrow)
        if key not in self._twins:
            self._twins[key] = fresh_name(f"{name}_{self._suffix}", self._names)
        return self._twins[key]

    def _convert_weights(self) -> None:
        """Convert weights that only FP16 nodes read in place. A weight for both types exists twice."""
        inputs = [value.name for value in self._graph.input]
        for tensor in list(self._graph.initializer):
            name = tensor.name
            readers = self._readers.get(name, set())
            if self._narrow not in readers:
                continue
            if TensorProto.FLOAT in readers or name in self._pinned:
                copy = self._graph.initializer.add()
                copy.CopyFrom(tensor)
                self._writer.to_half(copy, self._half_weight(name), self._rules.narrow)
                continue
            self._writer.to_half(tensor, self._half_weight(name), self._rules.narrow)
            if name in inputs:
                del self._graph.input[inputs.index(name)]
                inputs.remove(name)


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that inner graphs read, including their own names, which do no harm."""
    for node in graph.node:
        for inner in subgraphs(node):
            yield from (value.name for value in inner.output)
            for each in all_nodes(inner):
                yield from each.input
