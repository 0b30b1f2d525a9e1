"""Creates inputs that match the weights of the first layer, so that its sums are as large as possible.

Matched filters react to their template, and trained layers amplify some directions. Random values show neither.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx

from enginesmith_runtime.onnx_graphs.dataflow import MOVES
from enginesmith_runtime.onnx_graphs.graph import hoist_constants, name_nodes, read_graph
from enginesmith_runtime.prepare.fp16.layer_weights import WINDOWS, Columns, LayerWeights
from enginesmith_runtime.prepare.fp16.value_ranges import Watched, watch
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.runs.inputs import Array, typed_values
from enginesmith_runtime.prepare.runs.reference_runs import RUN_FAILURES

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

__all__ = ["find_signs"]

_PASSES: Final = MOVES | frozenset(
    {
        "Add", "BatchNormalization", "Div", "GroupNormalization", "Identity", "InstanceNormalization",
        "LayerNormalization", "Mul", "Sub",
    }
)  # fmt: skip
_MOST_COLUMNS: Final = 8
_ROUNDS: Final = 8
_MOST_LAYERS: Final = 4
_DIGIT: Final = 100
_EXACT: Final = 0.05


class _Layer(NamedTuple):
    """A layer with its columns and the sums of their magnitudes."""

    node: onnx.NodeProto
    columns: Columns
    sums: Floats


def find_signs(
    path: Path, feed: Feed, ordinary: Mapping[str, Array], names: tuple[str, ...], *, by_direction: bool
) -> dict[str, Floats]:
    """Return 1 or -1 for each element of inputs that a layer reads: the signs of its weights.

    Args:
        path: Path of the model.
        feed: Feed of the model.
        ordinary: Ordinary values of all inputs.
        names: Names of the inputs to consider.
        by_direction: Whether the common direction of all columns comes first, and not the largest column.
    """
    model = read_graph(path)
    name_nodes(model)
    hoist_constants(model)
    found: dict[str, Floats] = {}
    for name, layers in _first_layers(model, path.parent, names).items():
        layer = max(layers, key=lambda each: float(each.sums.max()))
        value = layer.node.input[0]
        prefix = Watched(model=_before(model, value), folder=path.parent, names=(value,))
        try:
            places = _places(prefix, feed, ordinary, name)
        except RUN_FAILURES:
            continue  # the model refuses such values
        signs = None if places is None else _pattern(layer, places[0].shape, by_direction=by_direction)
        if places is not None and signs is not None:
            found[name] = np.ones(ordinary[name].shape)
            found[name].flat[places[0].reshape(-1)] = (signs * places[1]).reshape(-1)
    return found


def _first_layers(model: onnx.ModelProto, folder: Path, names: tuple[str, ...]) -> dict[str, list[_Layer]]:
    """Return the first layers after each input."""
    weights = LayerWeights(model.graph, folder)
    origins = dict(zip(names, names, strict=True))
    layers: dict[str, list[_Layer]] = {}
    for node in model.graph.node:
        read = [name for name in node.input if name in origins]
        if read and weights.is_layer(node) and node.input[0] in origins:
            found = layers.setdefault(origins[read[0]], [])
            columns = weights.columns(node) if len(found) < _MOST_LAYERS else None
            if columns is not None and columns.size:
                sums = np.abs(columns).reshape(len(columns), -1).sum(1, dtype=np.float64)
                found.append(_Layer(node, columns, sums))
        elif len(read) == 1 and node.op_type in _PASSES:
            origins |= dict.fromkeys(node.output, origins[read[0]])
    return {name: found for name, found in layers.items() if found}


def _before(model: onnx.ModelProto, value: str) -> onnx.ModelProto:
    """Return the part of a model that produces a value."""
    wanted = {value}
    kept = []
    for node in reversed(model.graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:]
    part.graph.node.extend(reversed(kept))
    return part


def _places(prefix: Watched, feed: Feed, ordinary: Mapping[str, Array], name: str) -> tuple[Integers, Floats] | None:
    """Return the input element, and its sign, for each element that a layer reads.

    Moves and factors are found by runs with numbers of two digits. A normalisation does not move elements.
    """
    spec = next(one for one in feed.facts.inputs if one.name == name)
    array = ordinary[name]
    counted = np.arange(array.size).reshape(array.shape)
    if prefix.names == (name,):
        return counted, np.ones(array.shape)

    def made(values: Array) -> Floats:
        [(_, seen)] = watch(prefix, feed, {**ordinary, name: typed_values(values, spec.dtype)}, _as_floats)
        return seen

    zero = made(np.zeros(array.shape))
    step = made(np.ones(array.shape)) - zero
    found = np.zeros(zero.shape)
    unit = 1
    exact = bool(np.isfinite(step).all() and step.all())
    while exact and unit < array.size:
        digits = (made(counted // unit % _DIGIT) - zero) / step
        exact = bool(np.isfinite(digits).all() and (np.abs(digits - np.rint(digits)) < _EXACT).all())
        found += np.rint(digits) * unit if exact else 0
        unit *= _DIGIT
    if exact and found.min(initial=0) >= 0 and found.max(initial=0) < array.size:
        return found.astype(np.int64), np.sign(step)
    return (counted.reshape(zero.shape), np.ones(zero.shape)) if zero.size == array.size else None


def _as_floats(_: str, array: Array) -> Floats:
    return np.asarray(array, np.float64)


def _pattern(layer: _Layer, shape: tuple[int, ...], *, by_direction: bool) -> Floats | None:
    """Return the signs for the input of a layer, or None if shapes differ.

    Rows have, in turn, the signs of the largest column, of the common direction, and of the next columns.
    """
    if layer.node.op_type in WINDOWS:
        return _windows(layer, shape, by_direction=by_direction)
    chosen = _ranked(layer.columns, layer.sums, by_direction=by_direction)
    if not shape or shape[-1] != chosen.shape[1]:
        return None
    rows = int(np.prod(shape[:-1]))
    return chosen[np.arange(rows) % len(chosen)].reshape(shape)


def _ranked(columns: Columns, sums: Floats, *, by_direction: bool) -> Floats:
    """Return the signs of the common direction of columns and of the largest ones."""
    flat = columns.reshape(len(columns), -1)
    direction = np.abs(flat).sum(0, dtype=np.float64)
    for _ in range(_ROUNDS):
        turned = flat.T @ (flat @ direction)
        direction = turned / (np.linalg.norm(turned) or 1.0)
    rows = [flat[one] for one in np.argsort(-sums)[:_MOST_COLUMNS]]
    rows.insert(0 if by_direction else 1, direction)
    return np.where(np.stack(rows) < 0, -1.0, 1.0)


def _windows(layer: _Layer, shape: tuple[int, ...], *, by_direction: bool) -> Floats | None:
    """Return kernels side by side at the positions of a convolution's windows."""
    attributes = {one.name: list(one.ints) for one in layer.node.attribute}
    channels, *sizes = layer.columns.shape[1:]
    if len(shape) != layer.columns.ndim or not channels or shape[1] % channels:
        return None
    groups = shape[1] // channels
    if len(layer.columns) % groups:
        return None
    pads = attributes.get("pads") or [0] * len(sizes)
    rates = attributes.get("dilations") or [1] * len(sizes)
    indices = [
        (np.arange(n) + pad) // rate % size for n, pad, rate, size in zip(shape[2:], pads, rates, sizes, strict=False)
    ]
    parts = zip(np.split(layer.columns, groups), np.split(layer.sums, groups), strict=True)
    ranked = [_ranked(part, sums, by_direction=by_direction) for part, sums in parts]
    kernels = [
        np.concatenate([each[row % len(each)].reshape(channels, *sizes) for each in ranked]) for row in range(shape[0])
    ]
    return np.stack([kernel[np.ix_(np.arange(shape[1]), *indices)] for kernel in kernels])
