"""Sorts nodes in topological order, as ONNX requires, including those of inner graphs and functions.

Graph editors append nodes at the end. ONNX Runtime and TensorRT sort such a graph, but ONNX's checker refuses it, and
code with a single pass over the nodes would misread it.
"""

import heapq
from collections.abc import Iterator, Sequence

import onnx

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.onnx_graphs.graph import label, subgraphs

__all__ = ["order_warnings", "read_by", "sort_nodes"]

_SHOWN = 20


def sort_nodes(model: onnx.ModelProto, where: str) -> int:
    """Sort the nodes in place with as few moves as possible. Return the number of moved nodes.

    Args:
        model: Model to sort. A graph that defines a name twice is not sorted; ONNX's checker refuses it.
        where: Name of the model in messages.

    Raises:
        enginesmith_contract.errors.ModelError: `GraphHasCycle` with the nodes of one cycle.
    """
    return _sort(model.graph, where) + sum(_sort(function, where) for function in model.functions)


def order_warnings(late: int) -> tuple[str, ...]:
    """Return the warning about this number of moved nodes."""
    if not late:
        return ()
    return (f"{late} node(s) stood before nodes whose outputs they read: the prepared model has them in order",)


def _sort(body: onnx.GraphProto | onnx.FunctionProto, where: str) -> int:
    nodes = body.node
    moved = sum(_sort(inner, where) for node in nodes for inner in subgraphs(node))
    needs = _needs(nodes)
    late = sum(any(one >= index for one in needed) for index, needed in enumerate(needs))
    if not late:
        return moved
    order = _order(needs)
    if len(order) < len(nodes):
        raise _cyclic(nodes, needs, frozenset(order), where)
    ordered = [onnx.NodeProto.FromString(nodes[index].SerializeToString()) for index in order]
    del nodes[:]
    nodes.extend(ordered)
    return moved + late


def _needs(nodes: Sequence[onnx.NodeProto]) -> list[frozenset[int]]:
    """Return for each node the indices of the nodes whose outputs it reads, or nothing if a name is defined twice."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers:
                return [frozenset()] * len(nodes)
            makers[name] = index
    return [frozenset(makers[name] for name in read_by(node) if name in makers) for node in nodes]


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node and its inner graphs read, except names that the inner graphs define."""
    yield from filter(None, node.input)
    for inner in subgraphs(node):
        own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
        own |= {tensor.values.name for tensor in inner.sparse_initializer}
        own |= {name for one in inner.node for name in one.output}
        read = (name for one in inner.node for name in read_by(one))
        yield from (name for name in (*read, *(value.name for value in inner.output)) if name not in own)


def _order(needs: Sequence[frozenset[int]]) -> list[int]:
    """Return the sorted indices, with the first of the ready nodes first. Nodes of a cycle are omitted."""
    readers: list[list[int]] = [[] for _ in needs]
    for index, needed in enumerate(needs):
        for one in needed:
            readers[one].append(index)
    missing = [len(needed) for needed in needs]
    free = [index for index, count in enumerate(missing) if not count]
    order: list[int] = []
    while free:
        index = heapq.heappop(free)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(free, reader)
    return order


def _cyclic(
    nodes: Sequence[onnx.NodeProto], needs: Sequence[frozenset[int]], sorted_ones: frozenset[int], where: str
) -> ModelError:
    # An unsorted node always reads from another unsorted node, so the walk returns to a visited one.
    path: dict[int, None] = {}
    index = next(index for index in range(len(nodes)) if index not in sorted_ones)
    while index not in path:
        path[index] = None
        index = min(needs[index] - sorted_ones)
    seen = list(path)
    cycle = [label(nodes[one]) for one in reversed(seen[seen.index(index) :])]
    shown = [*cycle[:_SHOWN], *([f"{len(cycle) - _SHOWN} more"] if len(cycle) > _SHOWN else []), cycle[0]]
    return ModelError(
        "the model's nodes form a cycle",
        where=where,
        why=f"each of these reads the output of the one before it: {' -> '.join(shown)}",
        remedy="correct the inputs of one of these nodes, or export the model again",
        reason="GraphHasCycle",
    )
