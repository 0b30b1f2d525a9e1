"""Adds the normalisation of images as nodes before a model (see `enginesmith_contract.preprocess`).

    pixels ── Cast ── Transpose ── Sub (mean / scale) ── Mul (scale / std) ──> input of the model

The two constants are computed in float64 and rounded once. The first node is a Cast, because TensorRT supports UINT8
only there. All nodes use FP32, even in an FP16 model, because FP16 would round the differences before they are scaled.
An input of another float type gets an additional Cast.

The outputs are checked: the original model with normalised values must give the same as the new graph with pixels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preprocess import NODES, PIXEL_MAX, Preprocess
from enginesmith_contract.tensors import DType, ModelFacts
from enginesmith_runtime.onnx_graphs.graph import all_nodes, allow_free_weights, fresh_name, read_graph, subgraphs
from enginesmith_runtime.prepare.jobs import Feed, PreprocessJob
from enginesmith_runtime.prepare.runs.inputs import Array, as_floats
from enginesmith_runtime.prepare.runs.reference_runs import Session, bound_memory, is_same

__all__ = ["insert_preprocess", "verify_preprocess"]

_NCHW: Final = (0, 3, 1, 2)
_NORMALISED_TOLERANCE: Final = 1e-5  # relative to the largest normalised value: a few FP32 roundings
_ANSWER_TOLERANCE: Final = 1e-5
# ONNX Runtime removes a Cast to FP16 before an FP32 computation, so the pixels of one graph are not rounded.
_HALF_TOLERANCE: Final = 2.0**-6


def insert_preprocess(model: onnx.ModelProto, entries: Sequence[Preprocess]) -> None:
    """Add the normalisation before inputs that fit it; see `client_facts`. Names of inputs and nodes do not change."""
    allow_free_weights(model)
    graph = model.graph
    taken = _value_names(graph)
    nodes: list[onnx.NodeProto] = []
    for entry in entries:
        value = next(one for one in graph.input if one.name == entry.input)
        inner = fresh_name(f"{entry.input}_normalised", taken)
        for node in all_nodes(graph):
            for index, name in enumerate(node.input):
                if name == entry.input:
                    node.input[index] = inner
        for one in _inner_outputs(graph):
            if one.name == entry.input:
                one.name = inner
        nodes += _prologue(graph, entry, value.type.tensor_type.elem_type, inner, taken)
        _turn_into_pixels(value, len(entry.mean))
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def verify_preprocess(job: PreprocessJob) -> None:
    """Compare the outputs of the new graph for the pixels of each run with those of the original model.

    Raises:
        ModelError: `PreprocessDiffers`.
    """
    bound_memory(job.memory_bytes)
    alone = Path(job.output) / "prologue.onnx"
    feed = _write_prologue(job, alone)
    prologue = Session(str(alone), emulated=feed.emulated)
    original = Session(job.original, emulated=job.feed.emulated, threads=job.feed.threads)
    half = any(_dtype(job.original_facts, entry.input) is DType.FP16 for entry in job.entries)
    tolerance = _HALF_TOLERANCE if half else _ANSWER_TOLERANCE
    for path in (Path(job.folder) / f"{run}.npz" for run in job.runs):
        with np.load(path, allow_pickle=False) as archive:
            inputs = {spec.name: np.asarray(archive[f"input:{spec.name}"]) for spec in job.feed.facts.inputs}
            answers = {spec.name: np.asarray(archive[f"output:{spec.name}"]) for spec in job.feed.facts.outputs}
        pixels = {spec.name: inputs[spec.name] for spec in feed.facts.inputs}
        made = prologue.run(feed, pixels)
        for entry in job.entries:
            dtype = _dtype(job.original_facts, entry.input)
            _check_normalised(entry, dtype, pixels[entry.input], made[_made(entry)])
        normalised = inputs | {entry.input: made[_made(entry)] for entry in job.entries}
        before = original.run(job.feed.model_copy(update={"facts": job.original_facts}), normalised)
        for name, answer in answers.items():
            if before[name].dtype != object and not is_same(answer, before[name], tolerance):
                raise _differs(f"output {name} of the new graph differs from that of the original model")


def _check_normalised(entry: Preprocess, dtype: DType, pixels: Array, found: Array) -> None:
    scaled = np.transpose(pixels.astype(np.float64), _NCHW) * entry.factor
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (entry.mean, entry.std))
    want = (scaled - mean) / std
    largest = float(np.max(np.maximum(mean, PIXEL_MAX * entry.factor - mean) / std))
    roundoff = {DType.FP16: 2.0**-10, DType.BF16: 2.0**-7}.get(dtype, _NORMALISED_TOLERANCE)
    error = float(np.max(np.abs(as_floats(found, dtype) - want), initial=0.0))
    if not error <= roundoff * largest:
        raise _differs(f"the normalised values of input {entry.input} are off by {error:.3g}")


def _differs(why: str) -> ModelError:
    return ModelError(
        "the model with its normalisation gives other outputs",
        where="model.preprocess",
        why=why,
        remedy="normalise in the client instead, and report this model as a bug",
        reason="PreprocessDiffers",
    )


def _prologue(
    graph: onnx.GraphProto, entry: Preprocess, dtype: int, result: str, taken: set[str]
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that compute `result` from the pixels, and add their constants to the graph."""
    mean, std = np.array(entry.mean), np.array(entry.std)
    values = {"offset": mean / entry.factor, "factor": entry.factor / std}
    names = {}
    for role, array in values.items():
        names[role] = fresh_name(f"{entry.input}_{role}", taken)
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32).reshape(1, -1, 1, 1), names[role]))
    steps: list[tuple[str, str | None, dict[str, int | list[int]]]] = [
        ("Cast", None, {"to": int(TensorProto.FLOAT)}),
        ("Transpose", None, {"perm": list(_NCHW)}),
        ("Sub", names["offset"], {}),
        ("Mul", names["factor"], {}),
    ]
    if dtype != TensorProto.FLOAT:
        steps.append(("Cast", None, {"to": dtype}))
    source = entry.input
    for number, (op, constant, attributes) in enumerate(steps):
        is_last = number == len(steps) - 1
        target = result if is_last else fresh_name(f"{entry.input}_{op.lower()}", taken)
        node = helper.make_node(op, [source, constant] if constant else [source], [target])
        node.name = f"{NODES}{entry.input}/{number}"
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        yield node
        source = target


def _turn_into_pixels(value: onnx.ValueInfoProto, channels: int) -> None:
    tensor = value.type.tensor_type
    tensor.elem_type = TensorProto.UINT8
    batch, channel, height, width = (onnx.TensorShapeProto.Dimension.FromString(dim.SerializeToString())
                                     for dim in tensor.shape.dim)  # fmt: skip
    channel.Clear()
    channel.dim_value = channels
    del tensor.shape.dim[:]
    tensor.shape.dim.extend([batch, height, width, channel])


def _inner_outputs(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Yield the outputs of inner graphs, which may be values of the outer graph."""
    for node in all_nodes(graph):
        for inner in subgraphs(node):
            yield from inner.output


def _value_names(graph: onnx.GraphProto) -> set[str]:
    taken = {value.name for value in (*graph.input, *graph.output, *_inner_outputs(graph))}
    taken |= {tensor.name for tensor in graph.initializer}
    return taken | {each for node in all_nodes(graph) for each in (*node.input, *node.output)}


def _write_prologue(job: PreprocessJob, path: Path) -> Feed:
    """Write only the normalisation as a model with outputs `<input>_made`. Return its feed."""
    original = read_graph(Path(job.original))
    values = {value.name: value for value in original.graph.input}
    model = onnx.ModelProto(ir_version=original.ir_version, opset_import=original.opset_import)
    for entry in job.entries:
        value = model.graph.input.add()
        value.CopyFrom(values[entry.input])
        made = model.graph.output.add()
        made.CopyFrom(values[entry.input])
        made.name = _made(entry)
        model.graph.node.append(helper.make_node("Identity", [entry.input], [made.name]))
    model.graph.name = "preprocess"
    insert_preprocess(model, job.entries)
    path.write_bytes(model.SerializeToString())
    pixels = {spec.name: spec for spec in job.feed.facts.inputs}
    floats = {spec.name: spec for spec in job.original_facts.inputs}
    facts = job.feed.facts.model_copy(
        update={
            "inputs": tuple(pixels[entry.input] for entry in job.entries),
            "outputs": tuple(floats[entry.input].model_copy(update={"name": _made(entry)}) for entry in job.entries),
        }
    )
    return Feed(facts=facts, emulated=job.feed.emulated)


def _made(entry: Preprocess) -> str:
    return f"{entry.input}_made"


def _dtype(facts: ModelFacts, name: str) -> DType:
    return next(spec.dtype for spec in facts.inputs if spec.name == name)
