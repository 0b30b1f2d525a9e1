"""FP16 and BF16 arithmetic on a CPU: each node computes in FP32, and each of its results is rounded.

ONNX Runtime's CPU provider has few FP16 kernels and hardly any for BF16. It computes the other operators in FP32 with
Casts, and removes the Casts between two such nodes, so a graph that overflows on a GPU gives the results of FP32. A
pair of Casts, down and up, after each result is kept at every optimisation level. It gives the results of the graph's
arithmetic, apart from the order of sums inside a node.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, defs, helper, inliner

from enginesmith_contract.backends import Precision
from enginesmith_runtime.onnx_graphs.dataflow import MOVES
from enginesmith_runtime.onnx_graphs.graph import (
    all_nodes,
    all_tensors,
    fresh_name,
    is_onnx_domain,
    opset_of,
    read_graph,
    subgraphs,
)
from enginesmith_runtime.onnx_graphs.inferred_types import infer_types

__all__ = ["Emulation", "emulate", "emulation_of"]

_PRECISIONS: Final[Mapping[int, Precision]] = {
    TensorProto.FLOAT16: Precision.FP16,
    TensorProto.BFLOAT16: Precision.BF16,
}
# These operators define types themselves, and ONNX Runtime supports them in FP16 and BF16.
_AS_THEY_ARE: Final = frozenset({"BitCast", "Cast", "CastLike", "Constant", "ConstantOfShape", "Shape", "Size"})
# Sequences and optional values contain tensors of the type that was inserted.
_OF_CONTAINERS: Final = ("ConcatFromSequence", "Optional", "Sequence", "SplitToSequence")
_TYPE_ATTRIBUTES: Final = frozenset({"dtype", "output_datatype", "output_dtype", "stash_type"})


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """A graph without FP16 and BF16 arithmetic that gives the same results.

    Attributes:
        model: The model. Values keep their names and types, and weights stay in their files.
        precisions: Precisions of the graph's arithmetic except FP32. Moves of values are not arithmetic.
        nodes: Number of nodes that compute in them.
        has_bf16: Whether a node reads or writes BF16, for which ONNX Runtime often has no kernel.
    """

    model: onnx.ModelProto
    precisions: tuple[Precision, ...]
    nodes: int
    has_bf16: bool

    def open(self, runtime: Any, path: Path, options: Any) -> Any:  # noqa: ANN401 - the library has no types
        """Return a session of ONNX Runtime on the CPU.

        Args:
            runtime: The onnxruntime module.
            path: Path of the original model, with its weights in the same folder.
            options: `SessionOptions`. The folder of the weights is added.
        """
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        return runtime.InferenceSession(self.model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def emulate(model: onnx.ModelProto) -> Emulation | None:
    """Return the emulated graph, or None if a CPU computes the graph exactly anyway. The model is not changed."""
    if not any(_narrow_places(model)):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    emulator = _Emulator(copy)
    emulator.rewrite(copy.graph, {}, {})
    if not emulator.nodes and not emulator.has_bf16:
        return None
    return Emulation(
        model=copy,
        precisions=tuple(sorted(emulator.precisions)),
        nodes=emulator.nodes,
        has_bf16=emulator.has_bf16,
    )


def emulation_of(path: Path) -> Emulation | None:
    """Return the emulation of a model file; see `emulate`."""
    return emulate(read_graph(path))


def _narrow_places(model: onnx.ModelProto) -> Iterator[bool]:
    """Yield True for each position in the model at which a value becomes FP16 or BF16."""
    for value in model.graph.input:
        yield value.type.tensor_type.elem_type in _PRECISIONS
    for tensor in all_tensors(model):
        yield tensor.data_type in _PRECISIONS
    nodes = [*all_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    for node in nodes:
        yield any(attribute.name in {"to", *_TYPE_ATTRIBUTES} and attribute.i in _PRECISIONS
                  for attribute in node.attribute)  # fmt: skip


class _Emulator:
    """Rewrites a model in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opset = opset_of(model)
        self._types = _value_types(model)
        self._names = _all_names(model.graph)
        self.precisions: set[Precision] = set()
        self.nodes = 0
        self.has_bf16 = False

    def rewrite(self, graph: onnx.GraphProto, outer_types: Mapping[str, int], outer_twins: Mapping[str, str]) -> None:
        """Rewrite one graph. Inner graphs can read the values of outer ones.

        Args:
            graph: in topological order before and after.
            outer_types: Dtypes of the values that the graph may read by name.
            outer_twins: FP32 copies of these values, if they exist.
        """
        types = dict(outer_types)
        types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        twins = {name: twin for name, twin in outer_twins.items() if name not in own}
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            types |= self._output_types(node, types)
            for inner in subgraphs(node):
                self.rewrite(inner, types, twins)
            nodes.extend(self._emulated(node, types, twins))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    def _emulated(
        self, node: onnx.NodeProto, types: Mapping[str, int], twins: dict[str, str]
    ) -> Iterator[onnx.NodeProto]:
        """Yield the node in FP32, with Casts of its inputs before it and Casts of its outputs after it."""
        narrow = {name: types[name] for name in (*node.input, *node.output) if types.get(name, 0) in _PRECISIONS}
        if not narrow or not self._is_known(node):
            yield node
            return
        self.has_bf16 |= TensorProto.BFLOAT16 in narrow.values()
        if node.op_type not in MOVES:
            self.nodes += 1
            self.precisions |= {_PRECISIONS[dtype] for dtype in narrow.values()}
        for index, name in enumerate(node.input):
            if name not in narrow:
                continue
            if name not in twins:
                twins[name] = fresh_name(f"{name}_as_fp32", self._names)
                yield self._cast(name, twins[name], TensorProto.FLOAT)
            node.input[index] = twins[name]
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _PRECISIONS:
                attribute.i = TensorProto.FLOAT
        made = [(index, name) for index, name in enumerate(node.output) if name in narrow]
        raw = {name: fresh_name(f"{name}_unrounded", self._names) for _, name in made}
        for index, name in made:
            node.output[index] = raw[name]
        yield node
        for _, name in made:
            yield self._cast(raw[name], name, narrow[name])

    def _is_known(self, node: onnx.NodeProto) -> bool:
        """Whether the node is a standard ONNX operator that also accepts FP32 instead of FP16 or BF16."""
        if not is_onnx_domain(node.domain) or node.op_type in _AS_THEY_ARE or any(True for _ in subgraphs(node)):
            return False
        return not node.op_type.startswith(_OF_CONTAINERS) and _schema(node, self._opset) is not None

    def _output_types(self, node: onnx.NodeProto, types: Mapping[str, int]) -> dict[str, int]:
        """Return the dtypes of a node's outputs, from inference or from the operator's schema."""
        found = {name: self._types[name] for name in node.output if self._types.get(name)}
        unknown = [name for name in node.output if name and name not in found]
        schema = _schema(node, self._opset) if unknown and is_onnx_domain(node.domain) else None
        if schema is None or not schema.outputs:
            return found
        bound = {_formal(schema.inputs, index).type_str: types.get(name, 0)
                 for index, name in enumerate(node.input) if name and schema.inputs}  # fmt: skip
        for index, name in enumerate(node.output):
            if name in unknown:
                found[name] = bound.get(_formal(schema.outputs, index).type_str, 0)
        return found

    def _cast(self, source: str, target: str, dtype: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [source], [target], name=fresh_name(f"cast_{target}", self._names), to=dtype)


def _value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the inferred dtypes, including those of inner graphs. Names are unique over all graphs."""
    types: dict[str, int] = {}
    for graph in _graphs(infer_types(model)):
        values = (*graph.value_info, *graph.output, *graph.input)
        types |= {value.name: int(value.type.tensor_type.elem_type) for value in values}
    return types


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in all_nodes(graph):
        yield from subgraphs(node)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names: set[str] = set()
    for each in _graphs(graph):
        names |= {value.name for value in (*each.input, *each.output, *each.value_info)}
        names |= {tensor.name for tensor in each.initializer}
        for node in each.node:
            names |= {node.name, *node.input, *node.output}
    return names


def _schema(node: onnx.NodeProto, opset: int) -> defs.OpSchema | None:
    try:
        return defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return None


def _formal(parameters: Any, index: int) -> Any:  # noqa: ANN401 - onnx's FormalParameter is not exported
    return parameters[min(index, len(parameters) - 1)]
