"""Finds keys that a model knows: rows of its tables, labels of a LabelEncoder, integers that it compares with.

Of a table it selects the rows with the largest numbers, the rows that a matrix of the model amplifies most (tokens that
layers amplify), and pairs of nearly equal rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from enginesmith_runtime.onnx_graphs.dataflow import MOVES
from enginesmith_runtime.onnx_graphs.graph import hoist_constants, read_graph
from enginesmith_runtime.prepare.fp16.layer_weights import Columns, LayerWeights
from enginesmith_runtime.prepare.runs.inputs import Array

__all__ = ["TableKeys", "keys_of_inputs"]

_MOST_NUMBERS: Final = 1 << 27
_MOST_KEYS: Final = 64
_MOST_MATRICES: Final = 16
_MOST_COLUMNS: Final = 8
_PROJECTIONS: Final = 2
_OUTLIER: Final = 4.0


@dataclass(frozen=True, kw_only=True)
class TableKeys:
    """Keys by input.

    Attributes:
        known: Keys of tables and comparisons. The key of the largest number comes first.
        amplified: Ids of the rows that a matrix of the model amplifies far more than other rows, the largest first.
        alike: Pairs of ids with nearly equal rows, of shape [n, 2].
    """

    known: Mapping[str, Array] = field(default_factory=dict)
    amplified: Mapping[str, Array] = field(default_factory=dict)
    alike: Mapping[str, Array] = field(default_factory=dict)


def keys_of_inputs(path: Path) -> TableKeys:
    """Return keys for inputs that are looked up in tables or compared.

    Ids of a Gather are int64; keys of a LabelEncoder are int64 or `str` objects.
    """
    model = read_graph(path)
    hoist_constants(model)
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    origins = {value.name: value.name for value in model.graph.input if value.name not in tables}
    found: dict[str, Array] = {}
    rows: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] in origins and node.input[0] in tables:
            if _has_rows(node, tables[node.input[0]]):
                rows[origins[node.input[1]]] = tables[node.input[0]]
        elif node.op_type == "LabelEncoder" and node.input[0] in origins:
            found.update((origins[node.input[0]], keys) for keys in _labels(node))
        elif node.op_type == "Equal" and node.input[0] in origins and node.input[1] in tables:
            found.update((origins[node.input[0]], codes) for codes in _codes(tables[node.input[1]]))
        elif node.op_type in MOVES and node.input and node.input[0] in origins:
            origins |= dict.fromkeys(node.output, origins[node.input[0]])
    amplified: dict[str, Array] = {}
    alike: dict[str, Array] = {}
    for name, table in rows.items():
        values = numpy_helper.to_array(table, str(path.parent))
        values = values.reshape(len(values), -1)
        found[name] = _largest_first(np.arange(len(values)), np.maximum(values.max(1), -values.min(1)))
        ids = _amplified(values, _matrices(model.graph, values.shape[1], path.parent))
        amplified |= {name: ids} if ids.size else {}
        alike[name] = _alike(values)
    return TableKeys(known=found, amplified=amplified, alike=alike)


def _has_rows(node: onnx.NodeProto, table: onnx.TensorProto) -> bool:
    """Whether a node reads rows of a float table that is not very large."""
    axis = next((int(one.i) for one in node.attribute if one.name == "axis"), 0)
    is_float = helper.tensor_dtype_to_np_dtype(table.data_type).kind == "f"
    return is_float and not axis and 0 < int(np.prod(table.dims)) <= _MOST_NUMBERS


def _matrices(graph: onnx.GraphProto, width: int, folder: Path) -> Iterator[Columns]:
    """Yield the largest columns of the first matrices that may read rows of a width, as [width, columns]."""
    weights = LayerWeights(graph, folder)
    left = _MOST_MATRICES
    for node in graph.node:
        found = (
            weights.columns(node) if left and node.op_type in {"Gemm", "MatMul"} and weights.is_layer(node) else None
        )
        if found is not None and found.shape[1] == width:
            left -= 1
            yield found[np.argsort(-np.linalg.norm(found, axis=1))[:_MOST_COLUMNS]].T


def _amplified(rows: Columns, matrices: Iterable[Columns]) -> Array:
    """Return the ids of rows that a matrix amplifies, directly or after a normalisation."""
    best = np.zeros(len(rows))
    means, sizes = rows.mean(1, keepdims=True), rows.std(1, keepdims=True) + 1e-6
    for matrix in matrices:
        plain = rows @ matrix
        for made in (plain, (plain - means * matrix.sum(0)) / sizes):
            largest = np.abs(made).max(1)
            best = np.maximum(best, largest / max(float(np.median(largest)), 1e-9))
    order = np.argsort(-best, kind="stable")[:_MOST_KEYS]
    return order[best[order] > _OUTLIER]


def _alike(rows: Columns) -> Array:
    """Return pairs of ids with similar rows: neighbours after a projection, the most similar first."""
    random = np.random.default_rng(0)
    orders = [np.argsort(rows @ random.standard_normal(rows.shape[1])) for _ in range(_PROJECTIONS)]
    orders.append(np.arange(len(rows)))
    pairs = np.concatenate([np.stack([order[:-1], order[1:]], 1) for order in orders])
    apart = np.concatenate([_distances(rows, order) for order in orders])
    different = apart > 0
    return pairs[different][np.argsort(apart[different], kind="stable")[:_MOST_KEYS]]


def _distances(rows: Columns, order: Array) -> Columns:
    """Return the distance of each row to the next one in an order, for 128 MiB of rows at a time."""
    step = max(1, (1 << 25) // rows.shape[1])
    parts = [
        np.abs(rows[order[at : at + step + 1][:-1]] - rows[order[at : at + step + 1][1:]]).max(1, initial=0.0)
        for at in range(0, len(order) - 1, step)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _codes(compared: onnx.TensorProto) -> Iterator[Array]:
    """Yield the integers that an input is compared with. Floats and external weights are ignored."""
    if compared.data_type in {onnx.TensorProto.INT32, onnx.TensorProto.INT64} and not compared.external_data:
        codes = numpy_helper.to_array(compared).reshape(-1)[:_MOST_KEYS]
        if codes.size:
            yield codes


def _labels(node: onnx.NodeProto) -> Iterator[Array]:
    """Yield the keys of a LabelEncoder, unless they are floats."""
    lists: dict[str, Any] = {one.name: _listed(one) for one in node.attribute}
    keys: list[Any] = next((lists[name] for name in lists if name.startswith(("keys_int", "keys_str", "keys_ten"))), [])
    values: list[Any] = next((lists[name] for name in lists if name.startswith("values_")), [])
    if len(keys) and not isinstance(keys[0], float):
        sizes = np.zeros(len(keys)) if isinstance(values[0], str) else np.abs(np.asarray(values, np.float64))
        yield _largest_first(np.array(keys, object if isinstance(keys[0], str) else np.int64), sizes)


def _listed(attribute: onnx.AttributeProto) -> list[Any]:
    found = helper.get_attribute_value(attribute)
    values = numpy_helper.to_array(found).reshape(-1).tolist() if isinstance(found, onnx.TensorProto) else found
    return [one.decode() if isinstance(one, bytes) else one for one in np.atleast_1d(np.array(values, object))]


def _largest_first(keys: Array, sizes: Columns) -> Array:
    return keys[np.argsort(-sizes, kind="stable")[:_MOST_KEYS]]
