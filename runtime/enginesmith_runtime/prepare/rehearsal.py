"""The cast model in emulated FP16, before any GPU computes it: does it give what the source gives?

ONNX Runtime's own run of a cast model proves its types and shapes, not its arithmetic; see `emulation`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, shape_inference

from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, int_attribute
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.prepare.inputs import Array, fill_inputs
from enginesmith_runtime.prepare.jobs import Feed, Rehearsal, RehearseJob
from enginesmith_runtime.prepare.reference_runs import Session, bound_memory
from enginesmith_runtime.prepare.value_ranges import Watched, watch

__all__ = ["rehearse"]

_SMALLEST_SCALE = 2.0**-10


def rehearse(job: RehearseJob) -> Rehearsal:
    """Run every entry of the job; the first that makes NaN or infinity is searched for the nodes that do."""
    bound_memory(job.memory_bytes)
    emulated = job.feed.model_copy(update={"emulated": True})
    session = Session(job.model, emulated=True)
    worst: dict[str, float] = {}
    for run, shapes in job.runs.items():
        feed = emulated.at(job.given.get(run, {}))
        inputs = fill_inputs(feed, shapes, run)
        outputs = session.run(feed, inputs)
        with np.load(Path(job.folder) / f"{run}.npz", allow_pickle=False) as archive:
            found = {name: _difference(array, archive[f"output:{name}"]) for name, array in outputs.items()}
        worst |= {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
        if any(math.isinf(value) for value in found.values()):
            del session
            return Rehearsal(keep=_breaking_nodes(Path(job.model), feed, inputs), differences=worst)
    return Rehearsal(differences=worst)


def _difference(actual: Array, reference: Array) -> float:
    if actual.shape != reference.shape or not np.issubdtype(actual.dtype, np.floating):
        return 0.0  # the build's verification judges integers
    a, b = actual.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.all(np.isfinite(a[finite])):
        return math.inf
    scale = max(float(np.max(np.abs(b[finite]), initial=0.0)), _SMALLEST_SCALE)
    return float(np.max(np.abs(a[finite] - b[finite]), initial=0.0)) / scale


def _breaking_nodes(path: Path, feed: Feed, inputs: Mapping[str, Array]) -> dict[str, str]:
    """Return the nodes that make NaN or infinity of finite inputs, with their neighbours.

    A division by what FP16 made 0 is no fault of the division, so what it reads is kept as well.
    """
    model = read_graph(path)
    emulation = emulate(model)
    if emulation is None:
        return {}
    broken = _broken_values(model, Watched(model=emulation.model, folder=path.parent, names=()), feed, inputs)
    makers = {name: node for node in model.graph.node for name in node.output if name}
    kept: dict[str, str] = {}
    for node in model.graph.node:
        if broken.isdisjoint(node.output) or not broken.isdisjoint(node.input):
            continue
        if node.op_type != "Cast":
            kept[node.name] = "FP16 makes NaN or infinity of the reference inputs"
        readers = [each for each in model.graph.node if not set(node.output).isdisjoint(each.input)]
        for each in (*readers, *_behind_casts(node, makers)):
            if each.op_type != "Cast":
                kept.setdefault(
                    each.name, f"it is next to {node.name}{CAUSE}FP16 makes NaN or infinity of the reference inputs"
                )
    return kept


def _broken_values(model: onnx.ModelProto, watched: Watched, feed: Feed, inputs: Mapping[str, Array]) -> set[str]:
    """Return the values of the cast model that have NaN or infinity in emulated FP16."""
    # What a Cast rounds is looked at before: 1e6 is a number there, and infinite in FP16.
    rounded, singles = _rounded_values(watched.model)
    made = {name for node in model.graph.node for name in node.output}
    names = {name: rounded.get(name, name) for name in made if name in rounded or name in singles}
    places = replace(watched, names=tuple(dict.fromkeys(names.values())))
    seen = dict(watch(places, feed, inputs, _is_finite))
    return {name for name, place in names.items() if not seen[place][1 if name in rounded else 0]}


def _is_finite(array: Array) -> tuple[bool, bool]:
    """Return whether all of a value is finite, and whether it is in FP16."""
    with np.errstate(over="ignore"):
        return bool(np.all(np.isfinite(array))), bool(np.all(np.isfinite(array.astype(np.float16))))


def _behind_casts(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that made what a node reads."""
    for name in node.input:
        made = makers.get(name)
        while made is not None and made.op_type == "Cast":
            made = makers.get(made.input[0])
        if made is not None:
            yield made


def _rounded_values(model: onnx.ModelProto) -> tuple[dict[str, str], set[str]]:
    """Return the FP16 values that are rounded of FP32 ones, with the name of that one; and all FP32 values."""
    inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    singles = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    rounded = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Cast" and int_attribute(node, "to", 0) == TensorProto.FLOAT16 and node.input[0] in singles
    }
    return rounded, singles
