"""Reads the facts of an ONNX file: inputs, outputs, dtypes, open dimensions and their names.

Older files list weights among the inputs; they are ignored. PaddlePaddle names every open dimension "?". This does not
count as a name, because two such dimensions need not be equal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from enginesmith_contract.errors import ModelError
from enginesmith_contract.profile_suggestions import shape_text
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_runtime.onnx_graphs.graph import all_tensors, external_location, opset_of, read_graph
from enginesmith_runtime.onnx_graphs.order import sort_nodes
from enginesmith_runtime.prepare.model_file.inferred_shapes import Shape, infer_output_shapes, merge_shape
from enginesmith_runtime.prepare.model_file.shape_inputs import find_shape_inputs

__all__ = ["FileFacts", "facts_of", "inspect_model", "model_files"]

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


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Facts from a file and its nodes.

    Attributes:
        warnings: One warning for each output whose declared shape contradicts its nodes.
        unranked: Names of outputs with unknown rank. Their shape in `facts` is undefined.
    """

    facts: ModelFacts
    warnings: tuple[str, ...] = ()
    unranked: tuple[str, ...] = ()


def inspect_model(path: Path) -> ModelFacts:
    """Return the facts of the model at `path` without reading external weights.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx`; `GraphHasCycle`; `TensorTypeUnsupported` if an input or
            output is a sequence, a map, an optional value, sparse, or has a dtype that the inference protocol does not
            support.
    """
    model = read_graph(path)
    sort_nodes(model, path.name)
    return facts_of(model, path).facts


def facts_of(model: onnx.ModelProto, path: Path) -> FileFacts:
    """Return the facts of a model that was read from `path`.

    Raises:
        enginesmith_contract.errors.ModelError: `ModelHasNoTensors` or `TensorTypeUnsupported`.
    """
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
    _refuse_unsupported(inputs, graph.output, path)
    input_specs = tuple(_spec(value, _declared(value)) for value in inputs)
    declared = {value.name: _declared(value) for value in graph.output}
    shapes = _believed_shapes(model, declared, input_specs)
    outputs = tuple(_spec(value, shapes[value.name]) for value in graph.output)
    facts = ModelFacts(
        inputs=input_specs,
        outputs=outputs,
        opset=opset_of(model),
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        size_bytes=sum(file.stat().st_size for file in model_files(model, path) if file.is_file()),
        shape_inputs=find_shape_inputs(graph),
    )
    return FileFacts(
        facts=facts,
        warnings=tuple(_contradictions(graph.output, declared, outputs)),
        unranked=tuple(name for name, shape in shapes.items() if shape is None),
    )


def model_files(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Return the files of the model: the ONNX file first, then its weights files by name."""
    locations = {external_location(tensor) for tensor in all_tensors(model)} - {None}
    return (path, *(path.parent / str(name) for name in sorted(str(location) for location in locations)))


def _spec(value: onnx.ValueInfoProto, shape: Shape | None) -> TensorSpec:
    sizes, symbols = shape or Shape((), ())
    return TensorSpec(name=value.name, dtype=_DTYPES[value.type.tensor_type.elem_type], shape=sizes, symbols=symbols)


def _declared(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    return _shape(tensor.shape) if tensor.HasField("shape") else None


def _shape(shape: onnx.TensorShapeProto) -> Shape:
    return Shape(tuple(map(_dimension, shape.dim)), tuple(map(_symbol, shape.dim)))


def _believed_shapes(
    model: onnx.ModelProto, declared: Mapping[str, Shape | None], inputs: Iterable[TensorSpec]
) -> dict[str, Shape | None]:
    inferred = infer_output_shapes(model)
    symbols = frozenset(symbol for spec in inputs for symbol in spec.symbols if symbol is not None)
    return {
        name: merge_shape(shape, _shape(inferred[name]) if name in inferred else None, symbols)
        for name, shape in declared.items()
    }


def _contradictions(
    values: Iterable[onnx.ValueInfoProto], declared: Mapping[str, Shape | None], outputs: Iterable[TensorSpec]
) -> Iterator[str]:
    for value, spec in zip(values, outputs, strict=True):
        said = declared[value.name]
        if said is not None and said != (spec.shape, spec.symbols):
            yield (
                f"output {spec.name!r}: the file says {shape_text(_spec(value, said))}, and its nodes give "
                f"{shape_text(spec)}, which is what clients see"
            )


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> int:
    # PaddlePaddle writes open dimensions as -1. The value 0 is a normal size.
    return max(int(dimension.dim_value), -1) if dimension.HasField("dim_value") else -1


def _symbol(dimension: onnx.TensorShapeProto.Dimension) -> str | None:
    return None if dimension.dim_param in _NO_NAMES else str(dimension.dim_param)


def _refuse_unsupported(
    inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], path: Path
) -> None:
    """Refuse inputs and outputs with a type that the inference protocol does not support, and inputs without a rank."""
    problems = [f"{value.name}: {problem}" for value in (*inputs, *outputs) if (problem := _type_problem(value))]
    problems += [
        f"{value.name}: no rank (its shape is not in the file)"
        for value in inputs
        if not _type_problem(value) and not value.type.tensor_type.HasField("shape")
    ]
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
    return ""
