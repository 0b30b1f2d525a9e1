"""Finds the parts of an output that joins several kinds of values in one list. Large values would hide small ones."""

from collections.abc import Mapping
from typing import Final

import onnx

from enginesmith_runtime.prepare.fp16.value_ranges import float_values

__all__ = ["find_parts"]

_FLATTENS: Final = frozenset({"Flatten", "Reshape"})
_HANDS_ON: Final = _FLATTENS | {"Cast", "Identity", "Squeeze", "Transpose", "Unsqueeze"}


def find_parts(model: onnx.ModelProto, cast: onnx.ModelProto) -> Mapping[str, str]:
    """Return the values that a Concat joins before they are flattened, each with its output.

    Args:
        model: The source model.
        cast: The FP16 model. Values that it does not have are omitted.
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    floats = set(float_values(model)) & {name for node in cast.graph.node for name in node.output}
    parts: dict[str, str] = {}
    for output in model.graph.output:
        node = makers.get(output.name)
        is_flat = False
        while node is not None and node.op_type in _HANDS_ON:
            is_flat = is_flat or node.op_type in _FLATTENS
            node = makers.get(node.input[0])
        if node is not None and node.op_type == "Concat" and is_flat:
            parts |= {name: output.name for name in node.input if name in floats}
    return parts
