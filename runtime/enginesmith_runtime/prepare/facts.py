"""What an ONNX file says about itself: inputs, outputs, dtypes, open dimensions and their names.

Older files list weights among the inputs; those are no inputs. PaddlePaddle names every open dimension "?", which is no
name: two of them need not agree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx

from enginesmith_contract.errors import ModelError
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_runtime.prepare.graph import all_tensors, external_location, opset_of, read_graph
from enginesmith_runtime.prepare.shape_inputs import find_shape_inputs

__all__ = ["facts_of", "inspect_model", "model_files"]

_DTYPES: Final[Mapping[int, DType]] = {
    onnx.TensorProto.BOOL: DType.BOOL,
    onnx.TensorProto.UINT8: DType.UINT8,
    onnx.TensorProto.UINT16: DType.UINT16,
    onnx.TensorProto.UINT32: DType.UINT32,
    onnx.TensorProto.UINT64: DType.UINT64,
    onnx.TensorProto.INT8: DType.INT8,
    onnx.TensorProto.INT16: DType.INT16,
    onnx.TensorProto.INT32: DType.INT32,
    onnx.TensorProto.INT64: DType.INT64,
    onnx.TensorProto.FLOAT16: DType.FP16,
    onnx.TensorProto.FLOAT: DType.FP32,
    onnx.TensorProto.DOUBLE: DType.FP64,
    onnx.TensorProto.BFLOAT16: DType.BF16,
    onnx.TensorProto.STRING: DType.BYTES,
}
_NO_NAMES: Final = frozenset({"", "?", "*", "-1", "None"})


def inspect_model(path: Path) -> ModelFacts:
    """Return what the model at `path` says about itself, without reading weights that lie in other files.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx`; `TensorTypeUnsupported`: an input or output is a sequence,
            a map, an optional value, sparse, or of a dtype that the inference protocol has no name for.
    """
    return facts_of(read_graph(path), path)


def facts_of(model: onnx.ModelProto, path: Path) -> ModelFacts:
    """Return the facts of a model that was read from `path`."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer} | {
        sparse.values.name for sparse in graph.sparse_initializer
    }
    inputs = [value for value in graph.input if value.name not in weights]
    if not inputs or not graph.output:
        missing = "inputs" if not inputs else "outputs"
        raise ModelError(
            f"the model has no {missing}",
            where=path.name,
            remedy="export it with named inputs and outputs",
            reason="ModelHasNoTensors",
        )
    _refuse_unsupported([*inputs, *graph.output], path)
    return ModelFacts(
        inputs=tuple(_spec(value) for value in inputs),
        outputs=tuple(_spec(value) for value in graph.output),
        opset=opset_of(model),
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        size_bytes=sum(file.stat().st_size for file in model_files(model, path) if file.is_file()),
        shape_inputs=find_shape_inputs(graph),
    )


def model_files(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Return the files that make the model: the ONNX file first, then its weights' files in name order."""
    locations = {external_location(tensor) for tensor in all_tensors(model)} - {None}
    return (path, *(path.parent / str(name) for name in sorted(str(location) for location in locations)))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(_dimension(dimension) for dimension in tensor.shape.dim)
    symbols = tuple(_symbol(dimension) for dimension in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=_DTYPES[tensor.elem_type], shape=shape, symbols=symbols)


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> int:
    # PaddlePaddle writes open dimensions as the value -1. A value of 0 is a size like any other.
    return max(int(dimension.dim_value), -1) if dimension.HasField("dim_value") else -1


def _symbol(dimension: onnx.TensorShapeProto.Dimension) -> str | None:
    return None if dimension.dim_param in _NO_NAMES else str(dimension.dim_param)


def _refuse_unsupported(values: Sequence[onnx.ValueInfoProto], path: Path) -> None:
    """Name every input and output whose type cannot cross the inference protocol."""
    problems = [f"{value.name}: {problem}" for value in values if (problem := _type_problem(value))]
    if not problems:
        return
    raise ModelError(
        "an input or output has a type that cannot be served",
        where=path.name,
        why="; ".join(problems),
        remedy="export the model with plain tensors of bool, integer, float or string as inputs and outputs",
        reason="TensorTypeUnsupported",
    )


def _type_problem(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return f"{str(kind or 'untyped').removesuffix('_type')}"
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DTYPES:
        return f"dtype {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}"
    if not tensor.HasField("shape"):
        return "no rank (its shape is not in the file)"
    return ""
