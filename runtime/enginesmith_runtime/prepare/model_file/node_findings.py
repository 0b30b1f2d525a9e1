"""Finds nodes that cannot work, and reports them with a fix before a build.

There are two kinds: nodes that every TensorRT parser refuses or builds with another meaning (`find_refusals`; ONNX
Runtime supports them), and nodes that make a model's outputs random (`find_random_nodes`). The rules come from tests
with TensorRT for RTX 1.7, which uses TensorRT's parser, and from its documentation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, inliner, numpy_helper, shape_inference

from enginesmith_contract.preparation import Refusal
from enginesmith_runtime.onnx_graphs.graph import all_nodes, all_tensors, is_onnx_domain, label, subgraphs

__all__ = ["find_random_nodes", "find_refusals", "find_zero_divisors"]

_RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_INTEGERS: Final = frozenset(
    {
        TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    }
)  # fmt: skip
_UNKNOWN_TO_TENSORRT: Final = frozenset({TensorProto.INT16, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64})
_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Other operators that TensorRT supports for UINT8. Nodes with inner graphs are searched.
_TAKE_UINT8: Final = frozenset({"Cast", "CastLike", "Identity", "Shape", "Size", "If", "Loop", "Scan"}) | _QUANTISED
_MOST_ELEMENTS: Final = 1 << 20  # limit of a constant whose values are read: a zero point, a divisor, a flag
_TRAINING: Final = "export in eval mode (model.eval() before torch.onnx.export)"


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """Facts about the inputs of a node.

    Attributes:
        folder: Folder of the weights outside the ONNX file.
        tensors: Constants with readable values, by name.
        constants: All names that do not depend on an input.
        dtypes: Known element types by name.
    """

    folder: Path
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    dtypes: dict[str, int] = field(default_factory=dict)

    def enter(self, graph: onnx.GraphProto) -> "_Scope":
        """Return the scope of a graph inside this one, or of the main graph."""
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        values = {
            value.name: int(value.type.tensor_type.elem_type)
            for value in (*graph.input, *graph.output, *graph.value_info)
        }
        return _Scope(
            folder=self.folder,
            tensors={**self.tensors, **tensors},
            constants=self.constants | tensors.keys(),
            dtypes={**self.dtypes, **values, **{name: int(tensor.data_type) for name, tensor in tensors.items()}},
        )

    def learn(self, node: onnx.NodeProto) -> None:
        """Record the outputs of a node if they are constants."""
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                self.tensors[node.output[0]] = attribute.t
                self.dtypes[node.output[0]] = int(attribute.t.data_type)
        if node.op_type == "Identity" and node.input[0] in self.tensors:
            self.tensors[node.output[0]] = self.tensors[node.input[0]]
        if all(name in self.constants for name in node.input if name) and node.op_type not in _RANDOM:
            self.constants.update(node.output)

    def values(self, name: str) -> np.ndarray | None:
        """Return the values of a small constant, or None if they are not known."""
        tensor = self.tensors.get(name)
        if tensor is None or int(np.prod(tensor.dims, dtype=np.int64)) > _MOST_ELEMENTS:
            return None
        return np.asarray(numpy_helper.to_array(tensor, base_dir=str(self.folder)))


_Check = Callable[[onnx.NodeProto, _Scope], str | None]


def find_refusals(model: onnx.ModelProto, folder: Path) -> tuple[Refusal, ...]:
    """Return every node that TensorRT refuses or builds with another meaning, in the graph's order.

    Args:
        model: Model without external weights.
        folder: Folder of the external weights.
    """
    whole = _typed(_inlined(model))
    outputs = {value.name for value in whole.graph.output}
    weights = {tensor.name for tensor in whole.graph.initializer}
    found = [
        Refusal(node=value.name, op="input", message=_PASSED_ON[0], remedy=_PASSED_ON[1])
        for value in whole.graph.input
        if value.name in outputs and value.name not in weights
    ]
    for value in (*whole.graph.input, *whole.graph.output):
        dtype = int(value.type.tensor_type.elem_type)
        if dtype in _UNKNOWN_TO_TENSORRT | {TensorProto.STRING} and value.name not in weights:
            kind = "output" if value.name in outputs else "input"
            remedy = _NO_TEXT if dtype == TensorProto.STRING else _OTHER_TYPE
            found.append(Refusal(node=value.name, op=kind, message=_no_such_type(dtype), remedy=remedy))
    for node, scope in _walk(whole.graph, _Scope(folder=folder)):
        for check, remedy in _CHECKS:
            message = check(node, scope)
            if message is not None:
                found.append(Refusal(node=label(node), op=node.op_type, message=message, remedy=remedy))
                break
    return tuple(found)


def find_random_nodes(model: onnx.ModelProto, folder: Path) -> dict[str, str]:
    """Return the nodes with random results, as "node 'noise' (RandomNormal)", with the fix."""
    found = {}
    for node, scope in _walk(_inlined(model).graph, _Scope(folder=folder)):
        name = f"node {label(node)!r} ({node.op_type})"
        if node.op_type in _RANDOM:
            found[name] = "make the random numbers an input of the model, or export it without them"
        elif _trains_dropout(node, scope):
            found[name] = _TRAINING
    return found


def find_zero_divisors(model: onnx.ModelProto, folder: Path) -> tuple[str, ...]:
    """Return the nodes of the main graph that divide integers by a constant with a zero."""
    found = []
    for node, scope in _walk(_inlined(model).graph, _Scope(folder=folder), deep=False):
        if node.op_type in {"Div", "Mod"} and scope.dtypes.get(node.input[1]) in _INTEGERS:
            divisor = scope.values(node.input[1])
            if divisor is not None and not divisor.all():
                found.append(f"node {label(node)!r} ({node.op_type})")
    return tuple(found)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its functions inlined."""
    return inliner.inline_local_functions(model) if model.functions else model


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with inferred element types if a relevant type can occur."""
    if not _mentions_types(model):
        return model
    try:
        return shape_inference.infer_shapes(model)
    except (shape_inference.InferenceError, ValueError):  # an operator of a plugin, or over 2 GiB: use the declarations
        return model


def _mentions_types(model: onnx.ModelProto) -> bool:
    matter = _UNKNOWN_TO_TENSORRT | {TensorProto.UINT8}
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    if any(value.type.tensor_type.elem_type in matter for value in values):
        return True
    if any(tensor.data_type in matter for tensor in all_tensors(model)):
        return True
    return any(
        attribute.i in matter
        for node in all_nodes(model.graph)
        for attribute in node.attribute
        if attribute.name in {"to", "dtype", "output_dtype"}
    )


def _walk(graph: onnx.GraphProto, outer: _Scope, *, deep: bool = True) -> Iterator[tuple[onnx.NodeProto, _Scope]]:
    """Yield nodes of ONNX's domain, including those of inner graphs, with their scope."""
    scope = outer.enter(graph)
    for node in graph.node:
        if is_onnx_domain(node.domain):
            yield node, scope
            scope.learn(node)
        for inner in subgraphs(node) if deep else ():
            yield from _walk(inner, scope)


def _omits_condition(node: onnx.NodeProto, _scope: _Scope) -> str | None:
    if node.op_type != "Loop" or (len(node.input) > 1 and node.input[1]):
        return None
    for body in subgraphs(node):
        condition = body.input[1].name if len(body.input) > 1 else ""
        read = any(condition in inner.input for inner in all_nodes(body)) or condition == body.output[0].name
        if condition and read:
            return "its condition is left out, and its body reads it"
    return None


def _third_input(node: onnx.NodeProto) -> str:
    """Return the name of the optional third input, or "" if it is omitted."""
    return node.input[2] if node.input[2:] else ""


def _trains_dropout(node: onnx.NodeProto, scope: _Scope) -> bool:
    name = _third_input(node)  # training_mode
    if node.op_type != "Dropout" or not name:
        return False
    training = scope.values(name)
    return training is None or bool(training.any())


def _trains(node: onnx.NodeProto, scope: _Scope) -> str | None:
    if _trains_dropout(node, scope):
        return "it is in training mode, or may be"
    if node.op_type == "BatchNormalization" and any(
        attribute.name == "training_mode" and attribute.i for attribute in node.attribute
    ):
        return "it is in training mode: it normalises by what else is in the batch"
    return None


def _has_zero_point(node: onnx.NodeProto, scope: _Scope) -> str | None:
    name = _third_input(node)  # the zero point
    if node.op_type not in _QUANTISED or not name:
        return None
    values = scope.values(name)
    if values is None or not values.any():
        return None
    return "its zero point is not 0, and TensorRT takes 0 only"


def _has_unusable_scale(node: onnx.NodeProto, scope: _Scope) -> str | None:
    if node.op_type not in _QUANTISED:
        return None
    name = node.input[1]
    scales = scope.values(name)
    if scales is None:
        return None if name in scope.constants else "it computes its scale, and TensorRT takes constants only"
    plain = scales.astype(np.float64)
    bad = plain[~(np.isfinite(plain) & (plain > 0))]
    # TensorRT refuses the other values, but silently builds infinity.
    return f"its scale is {bad.flat[0]:g}, and scales are finite and above 0" if bad.size else None


def _is_quantised_otherwise(node: onnx.NodeProto, scope: _Scope) -> str | None:
    """Return a text about an integer type of a quantised tensor that TensorRT refuses, or handles as INT8."""
    if node.op_type not in _QUANTISED:
        return None
    name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    dtype = scope.dtypes.get(name)
    if node.op_type == "QuantizeLinear" and dtype is None:
        dtype = _quantised_type(node, scope)
    if dtype == TensorProto.UINT8:
        return "it is quantised as UINT8, which TensorRT takes for INT8 or refuses: values above 127 are cut"
    if dtype in {TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32}:
        return f"it is quantised as {_type_name(dtype)}, and TensorRT takes INT8, FP8, INT4 and FP4"
    return None


def _quantised_type(node: onnx.NodeProto, scope: _Scope) -> int | None:
    zero_point = _third_input(node)
    if zero_point:
        return scope.dtypes.get(zero_point)
    asked = next((int(attribute.i) for attribute in node.attribute if attribute.name == "output_dtype"), 0)
    return asked or int(TensorProto.UINT8)


def _computes_in_uint8(node: onnx.NodeProto, scope: _Scope) -> str | None:
    if node.op_type in _TAKE_UINT8 or all(name in scope.constants for name in node.input if name):
        return None
    names = (*node.input, *node.output)
    if any(scope.dtypes.get(name) == TensorProto.UINT8 for name in names if name):
        return "it works on UINT8, which TensorRT only casts"
    return None


def _has_unknown_type(node: onnx.NodeProto, scope: _Scope) -> str | None:
    for name in node.output:
        dtype = scope.dtypes.get(name, 0)
        if dtype in _UNKNOWN_TO_TENSORRT and name not in scope.constants and node.op_type != "Constant":
            return _no_such_type(dtype)
    return None


def _no_such_type(dtype: int) -> str:
    return f"it is of type {_type_name(dtype)}, which TensorRT does not have"


def _type_name(dtype: int | None) -> str:
    return str(TensorProto.DataType.Name(dtype or 0))


_PASSED_ON: Final = (
    "it is an input and an output under one name, and TensorRT needs two",
    "put an Identity node behind the input and make its result, under a name of its own, the output",
)
_NO_TEXT: Final = "do the work on text before the model"
_OTHER_TYPE: Final = "export it as INT32 or INT64"
_CHECKS: Final[tuple[tuple[_Check, str], ...]] = (
    (_omits_condition, "give the Loop a constant true as its second input"),
    (_trains, _TRAINING),
    (_has_zero_point, "quantise symmetrically: INT8 with zero point 0"),
    (_has_unusable_scale, "calibrate this tensor again, or do not quantise it"),
    (_is_quantised_otherwise, "quantise activations and weights symmetrically to INT8, and leave biases in float"),
    (_computes_in_uint8, "cast to FP32 or INT32 before this node, and back behind it"),
    (_has_unknown_type, _OTHER_TYPE),
)
