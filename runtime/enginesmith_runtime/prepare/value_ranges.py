"""Nodes whose values leave FP16's range in a reference run.

Every FP32 value of the main graph is looked at once. The outputs of a run are held in memory together, so they are
asked for in groups, each with a run of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, shape_inference

from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import name_nodes, read_graph
from enginesmith_runtime.prepare.inputs import Array, fill_inputs
from enginesmith_runtime.prepare.jobs import Feed, RangeJob
from enginesmith_runtime.prepare.reference_runs import bound_memory, exact_options, run_session

__all__ = ["Watched", "find_out_of_range", "watch"]

_GROUP: Final = 64
_MAX: Final = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL: Final = float(np.finfo(np.float16).smallest_normal)
_Seen = TypeVar("_Seen")


def find_out_of_range(job: RangeJob) -> dict[str, str]:
    """Return the nodes that make or read a value outside FP16's range, with what was seen.

    A value is outside where its largest finite magnitude is above 65504 and, where the job says so, where all of it is
    below the smallest normal number (6.1e-5), so that most of its digits would go.
    """
    bound_memory(job.memory_bytes)
    path = Path(job.model)
    model = read_graph(path)
    name_nodes(model)
    emulation = emulate(model) if job.feed.emulated else None
    inputs = fill_inputs(job.feed, job.shapes, job.run)
    watched = emulation.model if emulation else model
    places = Watched(model=watched, folder=path.parent, names=tuple(_float_values(model)))
    seen = watch(places, job.feed, inputs, lambda array: _described(array, small=job.small))
    found = {name: words for name, words in seen if words}
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        for name in (*node.output, *node.input):
            if name in found and node.op_type != "Constant":
                reasons.setdefault(node.name, f"its values {found[name]}")
    return reasons


@dataclass(frozen=True, kw_only=True)
class Watched:
    """FP32 values of the main graph of a model, by name; `folder` has the weights outside the ONNX file."""

    model: onnx.ModelProto
    folder: Path
    names: tuple[str, ...]


def watch(
    places: Watched, feed: Feed, inputs: Mapping[str, Array], look: Callable[[Array], _Seen]
) -> Iterator[tuple[str, _Seen]]:
    """Run a model and look at some of its values; yields each name and what `look` said of the value."""
    for start in range(0, len(places.names), _GROUP):
        group = places.names[start : start + _GROUP]
        session = _open(places, group)
        for name, array in zip(group, run_session(session, group, feed, inputs), strict=True):
            yield name, look(array)


def _float_values(model: onnx.ModelProto) -> list[str]:
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    made = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    return [name for name in made if types.get(name) == TensorProto.FLOAT]


def _open(places: Watched, names: Sequence[str]) -> ort.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(places.model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = exact_options()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(places.folder))
    return ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _described(array: Array, *, small: bool) -> str:
    magnitudes = np.abs(array[np.isfinite(array)])
    largest = float(np.max(magnitudes, initial=0.0))
    if largest > _MAX:
        return f"reach {largest:.3g}, and FP16 ends at 65504"
    if small and 0 < largest < _SMALLEST_NORMAL:
        return f"are all below {largest:.3g}, where FP16 has few digits left"
    return ""
