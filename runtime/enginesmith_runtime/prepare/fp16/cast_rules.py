"""Decides from ONNX's operator schemas which nodes can compute in FP16 or BF16."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import onnx
from onnx import TensorProto, defs

from enginesmith_runtime.onnx_graphs.graph import is_onnx_domain, subgraphs
from enginesmith_runtime.onnx_graphs.narrow import Narrow

__all__ = ["CastRules"]

# Operators with harmful FP16 forms: sums over long axes, coordinates, and scales from calibration.
_STAY: Final[Mapping[str, str]] = {
    "CumSum": "a running sum leaves FP16's precision",
    "DequantizeLinear": "quantisation scales stay in FP32",
    "DynamicQuantizeLinear": "quantisation scales stay in FP32",
    "GridSample": "sampling positions need more than FP16's 11 bits",
    "NonMaxSuppression": "box coordinates need more than FP16's 11 bits",
    "QuantizeLinear": "quantisation scales stay in FP32",
    "Range": "integers above 2048 are not exact in FP16",
    "RoiAlign": "box coordinates need more than FP16's 11 bits",
}
# Operators with BF16 forms that TensorRT for RTX 1.7 refuses.
_STAY_IN_BF16: Final = dict.fromkeys(("ConvTranspose", "HardSwish"), "TensorRT has no BF16 form of it")
# Operators whose output type is an attribute. It needs a Cast after the node.
_TYPED_BY_ATTRIBUTE: Final = frozenset(
    {
        "Bernoulli", "Cast", "Constant", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    }
)  # fmt: skip
_SHAPE_READERS: Final = frozenset({"Shape", "Size"})


class CastRules:
    """The nodes of one model that may become FP16 or BF16. "half" is the requested type.

    Attributes:
        narrow: The 16-bit format.
        types: ONNX dtype of each value of the main graph in the source model, from inference or from the schemas.
    """

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, int], narrow: Narrow) -> None:
        self.narrow = narrow
        self._stay = {**_STAY, **(_STAY_IN_BF16 if narrow.wide else {})}
        self.types = dict(types)
        self._opset = {entry.domain: int(entry.version) for entry in model.opset_import}
        self._shape_nodes = _shape_nodes(model.graph)
        for node in model.graph.node:
            for index in self._bound(node, node.output, self.half_inputs(node)):
                self.types.setdefault(node.output[index], int(TensorProto.FLOAT))

    def touches_floats(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads or writes FP32 values."""
        return any(self.types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))

    def is_convertible(self, node: onnx.NodeProto) -> bool:
        """Whether the node has an FP16 form that may be used."""
        return not self.why_kept(node) and node.op_type not in _TYPED_BY_ATTRIBUTE and bool(self.half_inputs(node))

    def why_kept(self, node: onnx.NodeProto) -> str:
        """Return why a node cannot compute in the format, or "" if it can or only passes values on."""
        if not is_onnx_domain(node.domain):
            return "an operator of another domain is left alone"
        if any(True for _ in subgraphs(node)):
            return "nodes with inner graphs are left alone"
        if node.op_type in self._stay:
            return self._stay[node.op_type]
        if node.op_type not in _SHAPE_READERS and node.output and node.output[0] in self._shape_nodes:
            return "it computes shapes, and integers above 2048 are not exact in FP16"
        if node.op_type not in _TYPED_BY_ATTRIBUTE and not self.half_inputs(node):
            return "ONNX has no FP16 form of it"
        return ""

    def half_inputs(self, node: onnx.NodeProto) -> frozenset[int]:
        """Return the inputs that are FP32 in the source and can be half in the operator's schema."""
        schema = self._schema(node)
        if schema is None or not schema.inputs:
            return frozenset()
        return frozenset(
            index
            for index, name in enumerate(node.input)
            if self.types.get(name) == TensorProto.FLOAT and self.narrow.schema in _formal(schema.inputs, index).types
        )

    def half_outputs(self, node: onnx.NodeProto) -> frozenset[int]:
        """Return the outputs that become half together with the half inputs."""
        return self._bound(node, node.output, self.half_inputs(node))

    def _bound(self, node: onnx.NodeProto, outputs: Iterable[str], half: frozenset[int]) -> frozenset[int]:
        schema = self._schema(node)
        if schema is None or not schema.outputs or node.op_type in _TYPED_BY_ATTRIBUTE:
            return frozenset()
        parameters = {_formal(schema.inputs, index).type_str for index in half}
        return frozenset(
            index
            for index, name in enumerate(outputs)
            if name and _formal(schema.outputs, index).type_str in parameters
        )

    def _schema(self, node: onnx.NodeProto) -> defs.OpSchema | None:
        if not is_onnx_domain(node.domain):
            return None
        version = max((number for domain, number in self._opset.items() if is_onnx_domain(domain)), default=1)
        try:
            return defs.get_schema(node.op_type, version, "")
        except defs.SchemaError:
            return None


def _formal(parameters: "Sequence[defs.OpSchema.FormalParameter]", index: int) -> "defs.OpSchema.FormalParameter":
    """Return the formal parameter of an actual one. The last formal parameter may be variadic."""
    return parameters[min(index, len(parameters) - 1)]


def _shape_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend only on shapes and constants."""
    constants = {tensor.name for tensor in graph.initializer} | {""}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    made: set[str] = set()
    for node in graph.node:
        inputs = set(node.input) - constants
        if node.op_type in _SHAPE_READERS or (inputs and inputs <= made):
            made |= set(node.output) - {""}
    return made
