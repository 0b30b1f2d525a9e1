"""Finds nodes whose values leave FP16's range in a reference run, as a whole or in columns.

Every FP32 value of the main graph is checked once. All outputs of a run are in memory together, so values are computed
in groups, with one run for each group.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import all_nodes, hoist_constants, name_nodes, read_graph, with_outputs
from enginesmith_runtime.onnx_graphs.inferred_types import infer_types
from enginesmith_runtime.prepare.fp16.columns import nodes_with_small_columns
from enginesmith_runtime.prepare.fp16.extents import extent_of
from enginesmith_runtime.prepare.jobs import Feed, RangeJob
from enginesmith_runtime.prepare.runs.inputs import Array, fill_inputs
from enginesmith_runtime.prepare.runs.reference_runs import open_exact, run_session

__all__ = ["Watched", "describe_extent", "find_out_of_range", "float_values", "nodes_at", "open_watched", "watch"]

_GROUP: Final = 64
_MAX: Final = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL: Final = float(np.finfo(np.float16).smallest_normal)
_FLOATS: Final = frozenset({np.dtype(np.float32), np.dtype(np.float16)})
_CONSTANTS: Final = frozenset({TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64})
_Seen = TypeVar("_Seen")


def find_out_of_range(job: RangeJob) -> dict[str, str]:
    """Return the nodes that produce or read a value out of FP16's range, with the observation.

    A value is out of range if its largest finite magnitude is above 65504. If the job says so, it is also out of range
    if it is completely below the smallest normal number (6.1e-5), because most of its digits would be lost. Small
    columns always count; see `columns`.
    """
    path = Path(job.model)
    model = read_graph(path)
    name_nodes(model)
    emulation = emulate(model) if job.feed.emulated else None
    inputs = fill_inputs(job.feed, job.shapes, job.run)
    watched = emulation.model if emulation else model
    places = Watched(model=watched, folder=path.parent, names=tuple(float_values(model)))
    outputs = {value.name for value in model.graph.output}
    extents = {name: extent_of(array) for name, array in inputs.items() if array.dtype in _FLOATS}
    found: dict[str, str] = {}

    def look(name: str, array: Array) -> None:
        extents[name] = extent_of(array, is_output=name in outputs)
        words = describe_extent(extents[name].peak, small=job.small)
        if words:
            found[name] = words

    for _ in watch(places, job.feed, inputs, look):
        pass
    reasons = nodes_at(model.graph, found)
    hoist_constants(model, _CONSTANTS)
    return nodes_with_small_columns(model, extents, path.parent) | reasons


def nodes_at(graph: onnx.GraphProto, found: Mapping[str, str]) -> dict[str, str]:
    """Return the nodes that produce or read values, with the findings about them."""
    reasons: dict[str, str] = {}
    for node in graph.node:
        for name in (*node.output, *node.input):
            if name in found and node.op_type != "Constant":
                reasons.setdefault(node.name, f"its values {found[name]}")
    return reasons


@dataclass(frozen=True, kw_only=True)
class Watched:
    """FP32 values of the main graph of a model, by name.

    Attributes:
        folder: Folder of the weights outside the ONNX file.
        weights: Weights that were detached from the model.
    """

    model: onnx.ModelProto
    folder: Path
    names: tuple[str, ...]
    weights: Mapping[str, ort.OrtValue] = field(default_factory=dict)


def watch(
    places: Watched, feed: Feed, inputs: Mapping[str, Array], look: Callable[[str, Array], _Seen]
) -> Iterator[tuple[str, _Seen]]:
    """Run a model and yield each name with the result of `look` for the name and its value."""
    for start in range(0, len(places.names), _GROUP):
        group = places.names[start : start + _GROUP]
        session = open_watched(places, group, feed.threads)
        for name, array in zip(group, run_session(session, group, feed, inputs), strict=True):
            yield name, look(name, array)


def float_values(model: onnx.ModelProto) -> list[str]:
    """Return the FP32 values that nodes of the main graph produce, in order."""
    inferred = infer_types(model)
    values = (*inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    made = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    return [name for name in made if types.get(name) == TensorProto.FLOAT]


def open_watched(places: Watched, names: Sequence[str], threads: int = 0) -> ort.InferenceSession:
    """Return a session with values of the main graph as outputs. It ends after the last of them."""
    made = [number for number, node in enumerate(places.model.graph.node, 1) if not set(names).isdisjoint(node.output)]
    watched = with_outputs(places.model, names)
    if made:
        del watched.graph.node[made[-1] :]
    # ONNX Runtime refuses weights without a reader.
    read = {name for node in all_nodes(watched.graph) for name in node.input}
    weights = {name: value for name, value in places.weights.items() if name in read}
    left = [one for one in watched.graph.initializer if one.name in read or one.name not in places.weights]
    del watched.graph.initializer[:]
    watched.graph.initializer.extend(left)
    return open_exact(watched, places.folder, threads, weights)


def describe_extent(largest: float, *, small: bool) -> str:
    """Return why values up to `largest` do not fit FP16, or "" if they do.

    Args:
        largest: Largest magnitude of the values.
        small: Whether tensors with only subnormal values count.
    """
    if largest > _MAX:
        return f"reach {largest:.3g}, and FP16 ends at 65504"
    if small and 0 < largest < _SMALLEST_NORMAL:
        return f"are all below {largest:.3g}, where FP16 has few digits left"
    return ""
