"""Runs the cast model in emulated FP16 or BF16 on the CPU and compares it with the source model.

A normal run of a cast model in ONNX Runtime proves its types and shapes but not its arithmetic; see `emulation`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, shape_inference

from enginesmith_runtime.comparison.compare import Comparison, compare, learn_all_scales
from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, int_attribute
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.onnx_graphs.narrow import Narrow, narrow_of
from enginesmith_runtime.prepare.fp16.value_ranges import Watched, watch
from enginesmith_runtime.prepare.jobs import Feed, Rehearsal, RehearseJob
from enginesmith_runtime.prepare.runs.inputs import Array, fill_inputs
from enginesmith_runtime.prepare.runs.reference_runs import Session, bound_memory

__all__ = ["rehearse"]


def rehearse(job: RehearseJob) -> Rehearsal:
    """Run every entry of the job. For the first one with NaN or infinity, search for the nodes that cause it."""
    bound_memory(job.memory_bytes)
    emulated = job.feed.model_copy(update={"emulated": True})
    session = Session(job.model, emulated=True, threads=job.feed.threads)
    scales = learn_all_scales(job.feed.facts.outputs, [Path(job.folder) / f"{run}.npz" for run in job.runs])
    judged = [spec for spec in job.feed.facts.outputs if spec.name in scales]  # the build judges the others
    worst: dict[str, float] = {}
    for run, shapes in job.runs.items():
        feed = emulated.at(job.given.get(run, {}))
        inputs = fill_inputs(feed, shapes, run)
        outputs = session.run(feed, inputs)
        with np.load(Path(job.folder) / f"{run}.npz", allow_pickle=False) as archive:
            found = {
                spec.name: _difference(
                    compare(outputs[spec.name], archive[f"output:{spec.name}"], spec.dtype, scales[spec.name])
                )
                for spec in judged
            }
        worst |= {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
        if any(math.isinf(value) for value in found.values()):
            del session
            return Rehearsal(
                keep=_breaking_nodes(Path(job.model), feed, inputs, narrow_of(job.precision)), differences=worst
            )
    return Rehearsal(differences=worst)


def _difference(parts: Iterable[Comparison]) -> float:
    """Return the largest ratio with the scales of the verification, which also judges ids."""
    return max((part.difference for part in parts if part.mismatches is None), default=0.0)


def _breaking_nodes(path: Path, feed: Feed, inputs: Mapping[str, Array], narrow: Narrow) -> dict[str, str]:
    """Return the nodes that produce NaN or infinity from finite inputs, with their neighbours.

    If FP16 rounds a divisor to 0, the division is not the cause, so the nodes before it are also kept.
    """
    model = read_graph(path)
    emulation = emulate(model)
    if emulation is None:
        return {}
    broken = _broken_values(model, Watched(model=emulation.model, folder=path.parent, names=()), feed, inputs, narrow)
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


def _broken_values(
    model: onnx.ModelProto, watched: Watched, feed: Feed, inputs: Mapping[str, Array], narrow: Narrow
) -> set[str]:
    """Return the values of the cast model with NaN or infinity in emulated arithmetic."""
    # Check values before a Cast rounds them: 1e6 is finite there and infinite in FP16.
    rounded, singles = _rounded_values(watched.model, narrow)
    made = {name for node in model.graph.node for name in node.output}
    names = {name: rounded.get(name, name) for name in made if name in rounded or name in singles}
    places = replace(watched, names=tuple(dict.fromkeys(names.values())))
    seen = dict(watch(places, feed, inputs, lambda _, array: _is_finite(array, narrow)))
    return {name for name, place in names.items() if not seen[place][1 if name in rounded else 0]}


def _is_finite(array: Array, narrow: Narrow) -> tuple[bool, bool]:
    """Return whether all elements are finite, and whether they are finite in the format."""
    with np.errstate(over="ignore"):
        return bool(np.all(np.isfinite(array))), bool(np.all(np.isfinite(array.astype(narrow.numpy))))


def _behind_casts(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the producers of a node's inputs, before Casts."""
    for name in node.input:
        made = makers.get(name)
        while made is not None and made.op_type == "Cast":
            made = makers.get(made.input[0])
        if made is not None:
            yield made


def _rounded_values(model: onnx.ModelProto, narrow: Narrow) -> tuple[dict[str, str], set[str]]:
    """Return the rounded values with the names of their FP32 sources, and all FP32 values."""
    inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    singles = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    rounded = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Cast" and int_attribute(node, "to", 0) == narrow.dtype and node.input[0] in singles
    }
    return rounded, singles
