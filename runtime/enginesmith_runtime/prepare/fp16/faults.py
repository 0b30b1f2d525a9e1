"""Finds the nodes that cause wrong FP16 outputs: values out of range, and amplified differences."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import external_location, fresh_name, hoist_constants, name_nodes, read_graph
from enginesmith_runtime.onnx_graphs.narrow import Narrow, narrow_of
from enginesmith_runtime.onnx_graphs.opset import raise_for_bf16
from enginesmith_runtime.prepare.fp16.value_ranges import Watched, float_values, watch
from enginesmith_runtime.prepare.jobs import SweepJob
from enginesmith_runtime.prepare.runs.inputs import Array

__all__ = ["FaultSearch", "with_rounded_layers"]

_Values = npt.NDArray[np.float64]
_LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
_MOST_SAMPLED: Final = 4096
_NEAR_THE_END: Final = 0.5  # share of the largest number, because a sample may not contain the largest value
_ENLARGES: Final = 4.0
_NOTABLE: Final = 0.004  # of FP16
_LEVELS: Final = (1, 4, 16)  # number of levels before the faulty node, by attempt
_MANY_LAYERS: Final = 20
_DEVIATIONS: Final = 20.0


class FaultSearch:
    """Searches the source and the cast model of one job."""

    def __init__(self, job: SweepJob) -> None:
        self._job = job
        self._narrow = narrow_of(job.precision)
        self._model = read_graph(Path(job.model))
        name_nodes(self._model)

    @property
    def is_last(self) -> bool:
        """Whether this attempt keeps the whole model."""
        return self._job.attempt >= len(_LEVELS)

    @property
    def is_deep(self) -> bool:
        """Whether the model has many layers."""
        return sum(node.op_type in _LAYERS for node in self._model.graph.node) >= _MANY_LAYERS

    def nodes(self, inputs: Mapping[str, Array], reason: str) -> dict[str, str]:
        """Return the nodes to keep in FP32 for one set of input values."""
        if self.is_last:
            return dict.fromkeys(self._all_names(), reason)
        names = float_values(self._model)
        want = self._look(self._model, Path(self._job.model), names, inputs, emulated=self._job.feed.emulated)
        kept = set(self._job.kept)
        large = {
            name
            for name, values in want.items()
            if np.abs(values).max(initial=0.0) > _NEAR_THE_END * self._narrow.largest
        }
        if any(np.abs(want[name]).max(initial=0.0) > self._narrow.largest for name in large):
            found = {node.name for node in self._model.graph.node if not large.isdisjoint({*node.input, *node.output})}
            if not found <= kept:
                return dict.fromkeys(found, reason)
        small = {name for name, values in want.items() if 0 < np.abs(values).max(initial=0.0) < self._narrow.tiny}
        found = {node.name for node in self._model.graph.node if not small.isdisjoint({*node.input, *node.output})}
        if not found <= kept:
            return dict.fromkeys(found, reason)
        cast = read_graph(Path(self._job.cast))
        made = {name for node in cast.graph.node for name in node.output}
        have = self._look(cast, Path(self._job.cast), [name for name in names if name in made], inputs, emulated=True)
        found = self._with_makers(self._enlarging({name: _apart(have[name], want[name]) for name in have}))
        return dict.fromkeys(found if not found <= kept else self._all_names(), reason)

    def is_beyond_training(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the first BatchNormalization gets values far outside its statistics."""
        hoisted, folder = self._hoisted, Path(self._job.model).parent
        weights = {tensor.name: tensor for tensor in hoisted.graph.initializer}
        for node in hoisted.graph.node:
            if node.op_type == "BatchNormalization" and set(node.input[3:5]) <= weights.keys():
                mean, variance = (numpy_helper.to_array(weights[name], str(folder)) for name in node.input[3:5])
                [(_, values)] = watch(
                    Watched(model=hoisted, folder=folder, names=(node.input[0],)), self._job.feed, inputs, _whole
                )
                shape = (1, -1, *(1 for _ in range(values.ndim - 2)))
                deviations = (values - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
                others = tuple(axis for axis in range(values.ndim) if axis != 1)
                return bool(np.sqrt(np.median(np.mean(deviations**2, axis=others))) > _DEVIATIONS)
        return False

    @cached_property
    def _hoisted(self) -> onnx.ModelProto:
        hoisted = onnx.ModelProto()
        hoisted.CopyFrom(self._model)
        hoist_constants(hoisted)
        return hoisted

    def _look(
        self, model: onnx.ModelProto, path: Path, names: list[str], inputs: Mapping[str, Array], *, emulated: bool
    ) -> dict[str, _Values]:
        emulation = emulate(model) if emulated else None
        looked_at = emulation.model if emulation else model
        seen = _with_copies(looked_at, names) if emulation and emulation.has_bf16 else names
        watched = Watched(model=looked_at, folder=path.parent, names=tuple(seen))
        return dict(zip(names, (value for _, value in watch(watched, self._job.feed, inputs, _sampled)), strict=True))

    def _enlarging(self, errors: Mapping[str, float]) -> set[str]:
        """Return the nodes whose result has a much larger error than their inputs, else the one that adds most."""
        found: set[str] = set()
        most, largest = "", 0.0
        for node in self._model.graph.node:
            after = max((errors[name] for name in node.output if name in errors), default=0.0)
            before = max((errors[name] for name in node.input if name in errors), default=0.0)
            ratio = after / max(before, self._narrow.unit) if np.isfinite(before) else 0.0
            if after > _NOTABLE * self._narrow.coarseness and ratio > _ENLARGES:
                found.add(node.name)
            if ratio > largest:
                most, largest = node.name, ratio
        return found or ({most} if most else set())

    def _with_makers(self, names: set[str]) -> set[str]:
        """Return nodes and the levels of nodes before them that this attempt includes."""
        makers = {name: node for node in self._model.graph.node for name in node.output if name}
        nodes = {node.name: node for node in self._model.graph.node}
        found = set(names)
        edge = names
        for _ in range(_LEVELS[self._job.attempt]):
            edge = {makers[name].name for each in edge for name in nodes[each].input if name in makers} - found
            found |= edge
        return found

    def _all_names(self) -> set[str]:
        return {node.name for node in self._model.graph.node if node.op_type != "Constant"}


def _with_copies(model: onnx.ModelProto, names: list[str]) -> list[str]:
    """Add FP32 copies of values to a model, because ONNX Runtime does not return BF16. Return their names."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    copies = [fresh_name(f"{name}_seen", taken) for name in names]
    model.graph.node.extend(
        helper.make_node("Cast", [name], [copy], to=TensorProto.FLOAT) for name, copy in zip(names, copies, strict=True)
    )
    return copies


def with_rounded_layers(model: onnx.ModelProto, narrow: Narrow) -> onnx.ModelProto:
    """Return a model in which only the weights and the results of layers are rounded to a format."""
    if narrow.wide:
        raise_for_bf16(model)
    hoist_constants(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = {name for node in model.graph.node for name in (*node.input, *node.output, node.name)} | weights
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and external_location(tensor) is None:
            values = numpy_helper.to_array(tensor).astype(narrow.numpy).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = [each for node in model.graph.node for each in _rounding(node, weights, names, narrow)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _rounding(node: onnx.NodeProto, weights: set[str], names: set[str], narrow: Narrow) -> Iterator[onnx.NodeProto]:
    if node.op_type not in _LAYERS or weights.isdisjoint(node.input):
        yield node
        return
    made = node.output[0]
    raw, half = fresh_name(f"{made}_raw", names), fresh_name(f"{made}_half", names)
    node.output[0] = raw
    yield node
    yield helper.make_node("Cast", [raw], [half], to=narrow.dtype)
    yield helper.make_node("Cast", [half], [made], to=TensorProto.FLOAT)


def _sampled(_: str, array: Array) -> _Values:
    flat = array.reshape(-1)
    return np.asarray(flat[:: max(1, flat.size // _MOST_SAMPLED)], np.float64)


def _whole(_: str, array: Array) -> _Values:
    return np.asarray(array, np.float64)


def _apart(have: _Values, want: _Values) -> float:
    """Return the largest difference as a share of the largest value, or infinity if only one of them is finite."""
    if have.shape != want.shape or not np.array_equal(np.isfinite(have), np.isfinite(want)):
        return np.inf
    finite = np.isfinite(want)
    scale = float(np.abs(want[finite]).max(initial=0.0))
    return float(np.abs(have[finite] - want[finite]).max(initial=0.0)) / scale if scale else 0.0
