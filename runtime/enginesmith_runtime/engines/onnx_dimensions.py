"""Removes meaningless names of open dimensions from a model before nvinfer's parser reads them.

The parser requires dimensions with one name to be equal. PaddlePaddle's exporter uses the name "?" for every unknown
dimension, so the parser would require equal height and width of images. The names cannot be changed after parsing: this
causes an internal error of the builder (TensorRT for RTX 1.7).
"""

from pathlib import Path
from typing import Any

from enginesmith_contract.tensors import TensorSpec

__all__ = ["without_false_names"]


def without_false_names(model: Path, inputs: tuple[TensorSpec, ...]) -> Path:
    """Return a model in which an open dimension has a name only if it has one in `inputs`.

    Args:
        model: ONNX file. External weights are in the same folder.
        inputs: Inputs of the model. A symbol is None if the dimension has no meaningful name.

    Returns:
        `model` itself, or a copy in the same folder.
    """
    open_axes = {spec.name: _nameless_axes(spec) for spec in inputs if spec.is_dynamic}
    if not any(open_axes.values()):
        return model
    import onnx

    loaded = onnx.load(str(model), load_external_data=False)
    false_names = {
        dimension.dim_param
        for value in loaded.graph.input
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim)
        if axis in open_axes.get(value.name, ()) and dimension.dim_param
    }
    if not false_names:
        return model
    for value in (*loaded.graph.input, *loaded.graph.output, *loaded.graph.value_info):
        _clear(value, false_names)
    copy = model.with_name(f"nameless-{model.name}")
    copy.write_bytes(loaded.SerializeToString())
    return copy


def _nameless_axes(spec: TensorSpec) -> frozenset[int]:
    symbols = spec.symbols or (None,) * len(spec.shape)
    return frozenset(
        axis for axis, (size, symbol) in enumerate(zip(spec.shape, symbols, strict=True)) if size < 0 and symbol is None
    )


def _clear(value: Any, names: set[str]) -> None:
    for dimension in value.type.tensor_type.shape.dim:
        if dimension.dim_param in names:
            dimension.ClearField("dim_param")
