"""Converts a model to a newer opset, in which operators support BF16, or scales in FP16.

ONNX's converter handles most changes. This module corrects or refuses the exceptions.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference, version_converter

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.onnx_graphs.graph import all_nodes, external_location, is_onnx_domain, opset_of

__all__ = ["ConversionError", "newest_opset", "raise_for_bf16", "raise_opset"]

_OF_BF16: Final = 22  # of Conv, pooling and normalisations
_OF_COORDINATES: Final = 11  # Resize has attributes for what Upsample and it did before
_IR_OF_NEW_OPSETS: Final = 10  # the first that has opsets 21 and 22
# Opsets that change the meaning of an operator, which the converter ignores.
_CHANGED: Final[Mapping[str, int]] = {"GroupNormalization": 21, "Hardmax": 13}


class ConversionError(Exception):
    """A model cannot be converted to an opset. The message has the reason."""


def newest_opset(model: onnx.ModelProto, wanted: int) -> int:
    """Return the newest opset up to `wanted` in which no node of the model changes its meaning."""
    first = opset_of(model)
    limits = [_CHANGED[node.op_type] - 1 for node in all_nodes(model.graph) if _changes(node, first, wanted)]
    return min([wanted, *limits])


def raise_opset(model: onnx.ModelProto, opset: int) -> None:
    """Raise the opset of a model in place, unless it is already as new. External weights stay in their files.

    Raises:
        ConversionError: ONNX's converter cannot do it, or would change the meaning of the model.
    """
    first = opset_of(model)
    if first >= opset:
        return
    if model.functions:
        raise ConversionError("it has functions of its own, which ONNX's converter would lose")
    changed = next((node.op_type for node in all_nodes(model.graph) if _changes(node, first, opset)), None)
    if changed is not None:
        raise ConversionError(f"{changed} means something else from opset {_CHANGED[changed]} on")
    large = [tensor for tensor in model.graph.initializer if external_location(tensor) is not None]
    kept = [tensor for tensor in model.graph.initializer if external_location(tensor) is None]
    given = {value.name for value in model.graph.input}
    light = onnx.ModelProto()
    light.CopyFrom(model)
    # For the converter, external weights are inputs.
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    new = [one for one in large if one.name not in given]
    light.graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in new)
    try:
        raised = version_converter.convert_version(light, opset)
    except (RuntimeError, shape_inference.InferenceError, version_converter.ConvertError) as error:
        raise ConversionError(str(error).strip().partition("\n")[0]) from error
    names = {one.name for one in new}
    inputs = [value for value in raised.graph.input if value.name not in names]
    del raised.graph.input[:]
    raised.graph.input.extend(inputs)
    raised.graph.initializer.extend(large)
    if first < _OF_COORDINATES:
        _keep_coordinates(raised.graph)
    raised.ir_version = max(raised.ir_version, _IR_OF_NEW_OPSETS)
    model.CopyFrom(raised)


def raise_for_bf16(model: onnx.ModelProto) -> None:
    """Raise the opset of a model in place to one with BF16, unless it is already as new.

    Raises:
        enginesmith_contract.errors.ModelError: `PrecisionNotAvailable`.
    """
    try:
        raise_opset(model, _OF_BF16)
    except ConversionError as error:
        raise ModelError(
            "bf16 cannot be prepared for this model",
            where=f"opset {opset_of(model)}",
            why=f"Conv, pooling and normalisations have BF16 from opset {_OF_BF16} on, which the model cannot have: "
            f"{error}",
            remedy=f"export it with opset {_OF_BF16}, or use precision fp16",
            reason="PrecisionNotAvailable",
        ) from error


def _changes(node: onnx.NodeProto, first: int, opset: int) -> bool:
    return is_onnx_domain(node.domain) and first < _CHANGED.get(node.op_type, 0) <= opset


def _keep_coordinates(graph: onnx.GraphProto) -> None:
    """Write the behaviour of Upsample and the first Resize as attributes, because later defaults differ."""
    values = {tensor.name: tensor for tensor in graph.initializer}
    values |= {node.output[0]: one.t for node in graph.node for one in node.attribute if node.op_type == "Constant"}
    for node in all_nodes(graph):
        if node.op_type != "Resize" or not is_onnx_domain(node.domain):
            continue
        scales = [
            values[name] for name in node.input[2:3] if name in values and external_location(values[name]) is None
        ]
        # ONNX Runtime rounded up when it reduced images.
        shrinks = any(bool(np.any(numpy_helper.to_array(one) < 1)) for one in scales)
        new = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil" if shrinks else "floor"}
        names = {attribute.name for attribute in node.attribute}
        node.attribute.extend(helper.make_attribute(name, new[name]) for name in new.keys() - names)
