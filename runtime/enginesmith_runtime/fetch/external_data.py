"""Reads and checks the names of an ONNX model's weights files, because the model is untrusted.

A model may have its weights in separate files; each tensor then has a location relative to the model's folder, an
offset and a length. The document is parsed without reading any weights.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from enginesmith_contract.errors import ModelError, SourceError
from enginesmith_runtime.fetch.file_kind import not_onnx
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["WeightsSpan", "check_inside", "check_lengths", "missing_weights", "read_weights_spans", "tensor_bytes"]

_LARGEST_MODEL_BYTES: Final = (1 << 31) - 1
_SAVE_NEXT: Final = "save the model with its weights in one file next to it (onnx.save with save_as_external_data)"
_BACKSLASH: Final = "a backslash separates folders on Windows only: ONNX separates them by forward slashes"
_HALF_BYTE_TYPES: Final = frozenset({"UINT4", "INT4", "FLOAT4E2M1"})


@dataclass(frozen=True, kw_only=True)
class WeightsSpan:
    """Position of one tensor in a weights file.

    Attributes:
        file: Path relative to the model's folder, with forward slashes and without `.` and `..`.
        end_bytes: Offset of the end of the tensor's bytes in the file.
    """

    file: str
    tensor: str
    end_bytes: int


def read_weights_spans(model: Path, where: str) -> tuple[WeightsSpan, ...]:
    """Return the positions of the model's external tensors, in the model's order.

    Args:
        model: Model file of at most 2 GiB, which is the limit of protobuf.
        where: Address of the model for messages.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx`.
        enginesmith_contract.errors.SourceError: `PathEscapes`.
    """
    if model.stat().st_size > _LARGEST_MODEL_BYTES:
        raise not_onnx(model, where, "it is larger than 2 GiB: save larger weights in a file of their own")
    try:
        document = onnx.load(model, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise not_onnx(model, where) from error
    if not document.ir_version or not (document.graph.node or document.graph.output):
        raise not_onnx(model, where)
    if not document.opset_import:
        raise not_onnx(model, where, "it is cut off: the operator set is missing")
    return tuple(_span(tensor, where) for tensor in _tensors(document) if _is_external(tensor))


def check_inside(folder: Path, span: WeightsSpan, where: str) -> Path:
    """Return the path of a weights file in `folder`.

    Raises:
        enginesmith_contract.errors.SourceError: `PathEscapes` if a symbolic link leaves the folder.
    """
    path = folder / span.file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _escapes(span.file, span.tensor, where, "it is a symbolic link that leaves the model's folder")
    return path


def missing_weights(file: str, tensor: str, where: str) -> SourceError:
    """Return the error of a weights file that is missing from its model's folder."""
    near = f"put {file} next to the model, under exactly that name"
    return SourceError(
        f"the weights file {file} is missing",
        where=where,
        why=f"it contains tensor {tensor!r}" + (f", and {_BACKSLASH}" if "\\" in file else ""),
        remedy=_SAVE_NEXT if "\\" in file else near,
        reason=SourceReason.EXTERNAL_DATA_MISSING,
    )


def check_lengths(spans: tuple[WeightsSpan, ...], sizes: Mapping[str, int], where: str) -> None:
    """Check that every tensor ends within its file.

    Raises:
        enginesmith_contract.errors.SourceError: `Truncated`.
    """
    for span in spans:
        if span.end_bytes > sizes[span.file]:
            raise SourceError(
                f"the weights file {span.file} is too short",
                where=where,
                why=f"tensor {span.tensor!r} ends at byte {span.end_bytes}, the file at {sizes[span.file]}",
                remedy="copy or export the model and its weights again, together",
                reason=SourceReason.TRUNCATED,
            )


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the size in bytes of a numeric tensor in a weights file, computed from its shape and dtype."""
    elements = math.prod(tensor.dims)
    if onnx.TensorProto.DataType.Name(tensor.data_type) in _HALF_BYTE_TYPES:
        return (elements + 1) // 2
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _span(tensor: onnx.TensorProto, where: str) -> WeightsSpan:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _inside(entries.get("location", ""), tensor.name, where)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else tensor_bytes(tensor)
    except ValueError as error:
        raise _bad_span(tensor.name, where, f"{entries}") from error
    if offset < 0 or length < 0:
        raise _bad_span(tensor.name, where, f"offset {offset}, length {length}")
    return WeightsSpan(file=file, tensor=tensor.name, end_bytes=offset + length)


def _inside(location: str, tensor: str, where: str) -> str:
    # Check both POSIX and Windows paths, because a model may come from another system, where `\` separates folders.
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not posix.parts or "\0" in location:
        raise _escapes(location, tensor, where, "it names no file")
    if posix.is_absolute() or windows.drive or windows.root:
        raise _escapes(location, tensor, where, "it is absolute")
    if ".." in windows.parts:
        raise _escapes(location, tensor, where, "it has '..' in it, which is not accepted")
    return str(posix)


def _escapes(location: str, tensor: str, where: str, why: str) -> SourceError:
    shown = repr(location).replace("\\\\", "\\")  # control characters stay escaped
    return SourceError(
        "the path of a weights file may lead outside the model's folder",
        where=where,
        why=f"tensor {tensor!r} has the location {shown}: {why}",
        remedy=_SAVE_NEXT,
        reason=SourceReason.PATH_ESCAPES,
    )


def _bad_span(tensor: str, where: str, why: str) -> ModelError:
    return ModelError(
        f"the position of tensor {tensor!r} in its weights file is invalid",
        where=where,
        why=why,
        remedy="export the model again",
        reason="NotOnnx",
    )


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _tensors(document: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors_of_graph(document.graph)
    for function in document.functions:
        yield from _tensors_of_nodes(function.node)
    for training in document.training_info:
        yield from _tensors_of_graph(training.initialization)
        yield from _tensors_of_graph(training.algorithm)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield sparse.values
                yield sparse.indices
            if attribute.HasField("g"):
                yield from _tensors_of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_of_graph(graph)
