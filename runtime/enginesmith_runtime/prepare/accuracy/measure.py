"""Compares two models on the same samples: errors of outputs, agreement of answers, errors of inner values."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import numpy as np
import onnx
from onnx import TensorProto, helper

from enginesmith_runtime.comparison.agreement import open_meters
from enginesmith_runtime.comparison.alarms import Similarity
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import fresh_name, name_nodes, read_graph, with_outputs
from enginesmith_runtime.prepare.accuracy.jobs import LayerError, Measured, MeasureJob
from enginesmith_runtime.prepare.fp16.value_ranges import float_values
from enginesmith_runtime.prepare.jobs import EventKind, Feed
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import Session, open_exact, run_session, save_run
from enginesmith_runtime.prepare.worker_events import Emit

__all__ = ["measure"]

_GROUP: Final = 32
"""Number of inner values that are in memory at the same time."""


def measure(job: MeasureJob, emit: Emit) -> Measured:
    """Compare the models, and emit a `RAN` event with the number of samples after each sample."""
    feed = Feed(facts=job.facts)
    _add_answers(job, feed)
    meters = open_meters(job.facts.outputs, job.gates, [Path(path) for path in job.samples], job.tolerances)
    model = Session(job.model, emulated=True)
    for number, path in enumerate(job.samples, start=1):
        found = model.run(feed, _read(path, "input", [spec.name for spec in job.facts.inputs]))
        expected = _read(path, "output", list(meters))
        for name, meter in meters.items():
            meter.add(unquote(Path(path).stem), found[name], expected[name])
        emit(EventKind.RAN, number)
    del model
    return Measured(
        outputs=tuple(meter.result() for meter in meters.values()),
        layers=tuple(_layers(job, feed)) if job.layers else (),
    )


def _add_answers(job: MeasureJob, feed: Feed) -> None:
    """Add the outputs of the FP32 model to samples without them."""
    session = None
    for path in job.samples:
        with np.load(path, allow_pickle=False) as archive:
            if any(name.startswith("output:") for name in archive.files):
                continue
        session = session or Session(job.reference, emulated=True)
        inputs = _read(path, "input", [spec.name for spec in job.facts.inputs])
        save_run(Path(path), inputs, session.run(feed, inputs))


def _read(path: str, kind: str, names: Sequence[str]) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: np.asarray(archive[f"{kind}:{name}"]) for name in names}


def _layers(job: MeasureJob, feed: Feed) -> Iterator[LayerError]:
    """Yield the error of each FP32 value that both models have under one name. A run computes a group of values."""
    source, other = read_graph(Path(job.reference)), read_graph(Path(job.model))
    name_nodes(source)
    emulation = emulate(other)
    made = {name for node in other.graph.node for name in node.output}
    makers = {name: node for node in source.graph.node for name in node.output}
    names = [name for name in float_values(source) if name in made]
    samples = [_read(path, "input", [spec.name for spec in job.facts.inputs]) for path in job.samples[: job.layers]]
    rectified = {name for name in names if makers[name].op_type == "Relu"}
    reference = source, Path(job.reference).parent
    changed = other if emulation is None else emulation.model, Path(job.model).parent
    for start in range(0, len(names), _GROUP):
        compared = _compare(reference, changed, names[start : start + _GROUP], feed, samples, rectified)
        for name, values in compared.items():
            node = makers[name]
            yield LayerError(node=node.name, op=node.op_type, tensor=name, sqnr_db=values.sqnr_db)


def _compare(
    reference: tuple[onnx.ModelProto, Path],
    model: tuple[onnx.ModelProto, Path],
    names: Sequence[str],
    feed: Feed,
    samples: Sequence[Mapping[str, Array]],
    rectified: Collection[str],
) -> dict[str, Similarity]:
    """Return the sums for named values of both models. A model is given as its graph and the folder of its weights.

    Values in `rectified` are outputs of a Relu. If the Relu was fused with the following quantisation, the value before
    it has this name, so it is rectified here.
    """
    first, second = (open_exact(_watching(graph, names), folder) for graph, folder in (reference, model))
    sums = {name: Similarity() for name in names}
    for inputs in samples:
        expected, found = (
            run_session(session, [output.name for output in session.get_outputs()], feed, inputs)
            for session in (first, second)
        )
        for name, a, b in zip(names, found, expected, strict=True):
            if a.shape == b.shape:
                value = np.maximum(a, 0) if name in rectified else a
                sums[name].add(value.astype(np.float64).ravel(), b.astype(np.float64).ravel())
    return sums


def _watching(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the model with named values as its only outputs, in FP32 because numpy has no BF16."""
    taken = {name for node in model.graph.node for name in node.output}
    copies = [fresh_name(f"{name}_watched", taken) for name in names]
    watched = with_outputs(model, copies)
    watched.graph.node.extend(
        helper.make_node("Cast", [name], [copy], to=TensorProto.FLOAT) for name, copy in zip(names, copies, strict=True)
    )
    return watched
