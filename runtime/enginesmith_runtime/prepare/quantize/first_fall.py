"""Finds the first tensor of a quantised model whose signal-to-quantization-noise ratio (SQNR) falls.

The noise of good INT8 grows slowly from node to node. A wrong range shows at its own tensor: when it is quantised, the
SQNR falls from that of the node's inputs to nearly nothing. Both models run on two samples, and tensors that both have
are compared. The lower SQNR of the two samples counts, because too wide ranges show in small values and too narrow
ranges in large ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from enginesmith_contract.verification import FirstFall
from enginesmith_runtime.comparison.alarms import sqnr
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import label, read_graph
from enginesmith_runtime.prepare.fp16.value_ranges import Watched, float_values, open_watched
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import run_session
from enginesmith_runtime.prepare.runs.shared_weights import detach_weights

__all__ = ["extremes", "locate"]

_GROUP: Final = 32
_EXACT_DB: Final = 60.0
"""SQNR of tensors that are not quantised. No 8-bit tensor has more."""
_BROKEN_DB: Final = 10.0
_LEAST_FALL_DB: Final = 6.0
_DOUBTFUL_DB: Final = 20.0
_LARGEST: Final[Mapping[int, float]] = {
    TensorProto.INT8: 127.0,
    TensorProto.UINT8: 255.0,
    TensorProto.FLOAT8E4M3FN: 448.0,
}
_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_PASSED: Final = frozenset({"Cast", "QuantizeLinear"})


@dataclass(kw_only=True)
class _Place:
    """One tensor that both models have.

    Attributes:
        source: Name in the FP32 model.
        name: Name in the quantised model, after DequantizeLinear if it is quantised.
        node: Node that produces or quantises it.
        quantised: Whether it is quantised.
    """

    source: str
    name: str
    node: onnx.NodeProto
    quantised: bool
    sqnr_db: float = _EXACT_DB
    signal: float = 0.0
    largest: float = 0.0

    def add(self, actual: Array, reference: Array) -> None:
        a, b = actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
        if a.shape != b.shape:
            self.sqnr_db = sqnr(1.0, np.inf)
            return
        finite = np.isfinite(b)
        values, error = b[finite], a[finite] - b[finite]
        # Do not use BLAS: for arrays of this size its threads cost more than they gain.
        signal = float((values * values).sum())
        noise = float((error * error).sum()) if np.isfinite(error).all() else np.inf
        if signal:
            self.sqnr_db = min(self.sqnr_db, sqnr(signal, noise))
        self.signal += signal
        self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))


@dataclass(kw_only=True)
class _Graph:
    """A graph without its large weights, and the weights."""

    model: onnx.ModelProto
    weights: Mapping[str, ort.OrtValue]
    makers: Mapping[str, onnx.NodeProto] = field(init=False)
    constants: Mapping[str, onnx.TensorProto] = field(init=False)

    def __post_init__(self) -> None:
        self.makers = {name: node for node in self.model.graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}

    @classmethod
    def read(cls, path: Path) -> "_Graph":
        """Read an ONNX file. Scales stay in the graph."""
        model = read_graph(path)
        scales = {name for node in model.graph.node if node.op_type in _QUANTISED for name in node.input[1:]}
        light, weights = detach_weights(model, kept=scales)
        return cls(model=light, weights=weights)

    def places(self, original: "_Graph") -> Iterator[_Place]:
        """Yield tensors that the FP32 model also has by name, in the order of the nodes.

        If there are quantised tensors, yield those, the inputs of their nodes, and the outputs. Else yield all of them.
        """
        known = frozenset(float_values(original.model)) | {value.name for value in original.model.graph.input}
        quantised = {node.input[0] for node in self.model.graph.node if node.op_type == "QuantizeLinear"}
        wanted = quantised | {value.name for value in self.model.graph.output} if quantised else known
        for node in self.model.graph.node:
            for name in node.output:
                if node.op_type == "DequantizeLinear":
                    quantiser = self.makers.get(node.input[0])
                    source = None if quantiser is None else self._origin(node.input[0], known)
                    if quantiser is not None and source is not None:
                        yield _Place(source=source, name=name, node=quantiser, quantised=True)
                # The output name of a fused Relu belongs to a value that is not rectified yet.
                elif name in wanted & known and node.op_type == original.makers[name].op_type:
                    yield _Place(source=name, name=name, node=node, quantised=False)

    def before(self, place: _Place, measured: Mapping[str, _Place]) -> float:
        """Return the lowest SQNR of the inputs of a tensor's node."""
        seen: set[str] = set()
        names = [name for name in place.node.input if name]
        found = [_EXACT_DB]
        while names:
            name = names.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in measured and name != place.name:
                found.append(measured[name].sqnr_db)
            elif name in self.makers:
                names.extend(each for each in self.makers[name].input if each)
        return min(found)

    def range_of(self, place: _Place) -> float | None:
        """Return the largest absolute value that a quantised tensor can hold."""
        scale = self.constants.get(place.node.input[1]) if place.quantised else None
        if scale is None:
            return None
        return float(np.max(numpy_helper.to_array(scale).astype(np.float64))) * _levels(place.node, self.constants)

    def _origin(self, name: str, known: frozenset[str]) -> str | None:
        """Return the FP32 model's tensor of a quantised tensor."""
        node = self.makers.get(name)
        while name not in known and node is not None and node.op_type in _PASSED:
            name = node.input[0]
            node = self.makers.get(name)
        return name if name in known else None


def extremes(samples: Iterable[Mapping[str, Array]]) -> list[Mapping[str, Array]]:
    """Return the sample with the smallest values and the one with the largest."""
    ordered = sorted(samples, key=_largest_value)
    return ordered[:1] + ordered[1:][-1:]


def locate(source: Path, quantised: Path, feed: Feed, samples: Iterable[Mapping[str, Array]]) -> FirstFall | None:
    """Return the first tensor of a quantised model whose SQNR falls, or None.

    Args:
        source: The FP32 model before the quantisation. Its tensors have the same names in both.
        quantised: The model with QuantizeLinear and DequantizeLinear.
        feed: The inputs of both.
        samples: Inputs by name. Their `extremes` are used.

    Raises:
        Errors of onnxruntime if a model does not run on a sample.
    """
    original, graph = _Graph.read(source), _Graph.read(quantised)
    inputs = extremes(samples)
    places = list(graph.places(original))
    two = (_watched(original, source.parent), _watched(graph, quantised.parent))
    for start in range(0, len(places), _GROUP):
        _measure(two, places[start : start + _GROUP], feed, inputs)
    return _first(graph, places)


def _watched(graph: _Graph, folder: Path) -> Watched:
    """Return a graph as ONNX Runtime computes it."""
    emulation = emulate(graph.model)
    model = graph.model if emulation is None else emulation.model
    return Watched(model=model, folder=folder, names=(), weights=graph.weights)


def _measure(
    two: tuple[Watched, Watched], places: Sequence[_Place], feed: Feed, inputs: Sequence[Mapping[str, Array]]
) -> None:
    original, quantised = two
    fed = {spec.name for spec in feed.facts.inputs}
    sources = [name for name in dict.fromkeys(place.source for place in places) if name not in fed]
    names = list(dict.fromkeys(place.name for place in places))
    for sample in inputs:
        # Run one session after the other, because each has all weights of its model.
        expected = dict(sample) | _run(original, sources, feed, sample)
        found = _run(quantised, names, feed, sample)
        for place in places:
            place.add(found[place.name], expected[place.source])


def _run(watched: Watched, names: Sequence[str], feed: Feed, sample: Mapping[str, Array]) -> dict[str, Array]:
    if not names:
        return {}
    session = open_watched(watched, names)
    return dict(zip(names, run_session(session, names, feed, sample), strict=True))


def _first(graph: _Graph, places: Sequence[_Place]) -> FirstFall | None:
    measured = {place.name: place for place in places}
    falls = [(place, graph.before(place, measured)) for place in places if place.signal]
    steep = [
        (place, before)
        for place, before in falls
        if place.sqnr_db < _DOUBTFUL_DB and before - place.sqnr_db >= _LEAST_FALL_DB
    ]
    broken = [each for each in steep if each[0].sqnr_db < _BROKEN_DB]
    # Only quantised tensors show a wrong range. Other tensors of a good engine can also be noisy (a sum near zero).
    broken = [each for each in broken if each[0].quantised] or broken
    if not steep:
        return None
    place, before = broken[0] if broken else max(steep, key=lambda each: each[1] - each[0].sqnr_db)
    return FirstFall(
        tensor=place.source,
        node=label(place.node),
        op=place.node.op_type,
        sqnr_db=round(place.sqnr_db, 2),
        before_db=round(before, 2),
        range=graph.range_of(place),
        largest=place.largest if place.quantised else None,
    )


def _largest_value(sample: Mapping[str, Array]) -> float:
    numbers = [array[np.isfinite(array)] for array in sample.values() if array.dtype.kind in "fiu"]
    return max((float(np.abs(array).max(initial=0)) for array in numbers), default=0.0)


def _levels(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> float:
    """Return the largest number of steps of a quantised tensor."""
    zero = next((constants[name] for name in node.input[2:3] if name in constants), None)
    if zero is None:
        return _LARGEST[TensorProto.INT8]
    largest = _LARGEST.get(zero.data_type, _LARGEST[TensorProto.INT8])
    shift = 0.0 if zero.data_type == TensorProto.FLOAT8E4M3FN else float(np.max(numpy_helper.to_array(zero)))
    return max(largest - shift, largest / 2)
