"""The graph that is calibrated and quantised: weights as initializers, one opset, normalisations folded.

Exporters keep weights in Constant nodes, and a BatchNormalization would be a node between a quantised convolution and
its activation. ONNX Runtime's basic level folds them. It renames and fuses nodes, so the normal form has the source
nodes of each of its nodes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
import onnxruntime
from onnx import TensorProto, inliner, numpy_helper

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import (
    all_nodes,
    allow_free_weights,
    hoist_constants,
    label,
    name_nodes,
    opset_of,
    subgraphs,
)
from enginesmith_runtime.onnx_graphs.opset import ConversionError, newest_opset, raise_opset
from enginesmith_runtime.onnx_graphs.order import sort_nodes
from enginesmith_runtime.prepare.quantize.weighted_nodes import FLOATS, find_weighted

__all__ = ["OPSET", "NormalForm", "normalise_file"]

OPSET: Final = 21
"""QuantizeLinear supports FP16 from 19 on and blocks from 21 on."""

_IR_VERSION: Final = 10  # the first with opset 21
_SOURCE_WEIGHTS: Final = "source.weights"
_SMALL: Final = 4096  # bytes of a weight whose values an opset conversion or folding may need


@dataclass(frozen=True, kw_only=True)
class NormalForm:
    """A model in normal form.

    Attributes:
        model: Model in which every node of the main graph has a unique name.
        sources: Names of the source nodes (see `node_names`) of each node, by its name.
    """

    model: onnx.ModelProto
    sources: Mapping[str, frozenset[str]]


def normalise_file(path: Path, folder: Path) -> NormalForm:
    """Return the normal form of a model file.

    Args:
        path: Path of the ONNX file. Its weights may be in other files.
        folder: Folder for the larger weights of the normal form.

    Raises:
        enginesmith_contract.errors.ModelError: `NotQuantisable` if it is already quantised, its opset cannot be raised,
            ONNX Runtime cannot load it, or no node has a weight that 8-bit kernels support.
    """
    return _normal_form(_with_weights_in(folder, _hoisted(path)), folder)


def _hoisted(path: Path) -> onnx.ModelProto:
    """Return a model whose weights are initializers, because only these are written to a file."""
    model = onnx.load(path)
    if not model.functions:
        name_nodes(model)
        hoist_constants(model, FLOATS)
    return model


def _normal_form(source: onnx.ModelProto, folder: Path) -> NormalForm:
    """Return the normal form of a model. Larger weights of model and result are in files of a folder."""
    name_nodes(source)
    sort_nodes(source, source.graph.name)
    hoist_constants(source, FLOATS)
    raised = onnx.ModelProto()
    raised.CopyFrom(source)
    _raise(raised, newest_opset(source, OPSET))
    name_nodes(raised)
    # ONNX Runtime would add Casts around each FP16 node without a CPU kernel.
    folded = _folded(raised, folder) if emulate(raised) is None else raised
    _tidy(folded)
    if not find_weighted(folded.graph):
        why = "no convolution or matrix product has a constant weight that 8-bit kernels support"
        raise _unusable("the model has nothing to quantise", why, "choose fp32 or fp16")
    return NormalForm(model=folded, sources=_sources(source.graph, folded.graph))


def _refuse_quantised(model: onnx.ModelProto) -> None:
    node = next((node for node in all_nodes(model.graph) if "Quantize" in node.op_type), None)
    if node is not None:
        why = f"node {label(node)} ({node.op_type}) is in the source"
        raise _unusable("the model is quantised already", why, "choose fp32 or fp16, or use the model before that")


def _with_weights_in(folder: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose larger weights are in a file of a folder and are constants, not graph inputs."""
    _refuse_quantised(model)
    model = inliner.inline_local_functions(model) if model.functions else model
    copy = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    copy.opset_import.extend(model.opset_import)
    copy.metadata_props.extend(model.metadata_props)
    allow_free_weights(copy)
    graph, source = copy.graph, model.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.output.extend(source.output)
    graph.sparse_initializer.extend(source.sparse_initializer)
    weights = {tensor.name for tensor in source.initializer}
    graph.input.extend(value for value in source.input if value.name not in weights)
    with (folder / _SOURCE_WEIGHTS).open("wb") as file:
        for tensor in source.initializer:
            entry = graph.initializer.add()
            if tensor.ByteSize() <= _SMALL or tensor.data_type == TensorProto.STRING:
                entry.CopyFrom(tensor)
                continue
            entry.name, entry.data_type, entry.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
            entry.dims.extend(tensor.dims)
            offset = file.tell()
            length = file.write(tensor.raw_data or numpy_helper.to_array(tensor).tobytes())
            for key, value in (("location", _SOURCE_WEIGHTS), ("offset", str(offset)), ("length", str(length))):
                entry.external_data.add(key=key, value=value)
    return copy


def _raise(model: onnx.ModelProto, opset: int) -> None:
    try:
        raise_opset(model, opset)
    except ConversionError as error:
        why = f"opset {opset_of(model)} to {opset}: {error}"
        raise _unusable("the opset cannot be raised", why, f"export the model with opset {opset}") from error


def _folded(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return the result of ONNX Runtime's basic level. Larger weights of model and result are in files of a folder."""
    source, target = folder / "source.onnx", folder / "folded.onnx"
    source.write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.weights")
    options.add_session_config_entry(
        "session.disable_prepacking", "1"
    )  # nothing is run, and prepacking copies each weight
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        why = str(error).splitlines()[0]
        raise _unusable("ONNX Runtime cannot load the model", why, "choose fp32 or fp16") from error
    folded = onnx.load(target, load_external_data=False)
    for file in (source, target, folder / _SOURCE_WEIGHTS):
        file.unlink(missing_ok=True)
    return folded


def _tidy(model: onnx.ModelProto) -> None:
    """Remove additions of ONNX Runtime and outdated data, and name and sort the nodes."""
    used = {"", *(node.domain for node in all_nodes(model.graph))}
    opsets = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    del model.graph.value_info[:]
    _clear_repeated_names(model.graph)
    sort_nodes(model, model.graph.name)
    name_nodes(model)


def _clear_repeated_names(graph: onnx.GraphProto) -> None:
    """Clear names that two dimensions of one value share. Some exporters use "?" for all, and builders believe it."""
    values = (*graph.input, *graph.output)
    repeated = set()
    for value in values:
        names = [dimension.dim_param for dimension in value.type.tensor_type.shape.dim if dimension.dim_param]
        repeated |= {name for name in names if names.count(name) > 1}
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in repeated:
                dimension.ClearField("dim_param")


def _sources(source: onnx.GraphProto, normal: onnx.GraphProto) -> dict[str, frozenset[str]]:
    """Return the source nodes of each node: those between values that both graphs have."""
    makers = {name: node for node in source.node for name in node.output if name}
    normal_makers = {name: node for node in normal.node for name in node.output if name}
    readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in normal.node:
        for name in node.input:
            readers[name].append(node)
    borders = normal_makers.keys() & makers.keys()
    found: dict[str, frozenset[str]] = {}
    for node in normal.node:
        ends = _known_ahead(node, borders, readers)
        found[node.name] = frozenset(_made_between(ends, makers, borders))
    return found


def _known_ahead(node: onnx.NodeProto, borders: "set[str]", readers: Mapping[str, list[onnx.NodeProto]]) -> set[str]:
    """Return the first values after a node that the source also has."""
    ends: set[str] = set()
    left, seen = [node], {node.name}
    while left:
        for name in left.pop().output:
            if name in borders:
                ends.add(name)
                continue
            new = [reader for reader in readers.get(name, ()) if reader.name not in seen]
            seen |= {reader.name for reader in new}
            left.extend(new)
    return ends


def _made_between(ends: set[str], makers: Mapping[str, onnx.NodeProto], borders: "set[str]") -> Iterator[str]:
    """Yield the names of the source nodes before values, back to the first values that both graphs have."""
    left, seen = list(ends), set(ends)
    while left:
        node = makers.get(left.pop())
        if node is None:
            continue
        yield node.name
        read = {*node.input, *(name for inner in subgraphs(node) for one in all_nodes(inner) for name in one.input)}
        new = read - seen - borders
        seen |= new
        left.extend(new)


def _unusable(what: str, why: str, remedy: str) -> ModelError:
    return ModelError(what, where="precision", why=why, remedy=remedy, reason="NotQuantisable")
