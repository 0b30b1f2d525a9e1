"""Nodes in the order that ONNX asks for: each after those whose outputs it reads, in inner graphs and functions too.

Graph editors append nodes at the end. ONNX Runtime and TensorRT sort such a graph; ONNX's checker refuses it, and what
walks a graph once reads it wrongly.
"""

import heapq
from collections.abc import Iterator, Sequence

import onnx

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.onnx_graphs.graph import label, subgraphs

__all__ = ["order_warnings", "read_by", "sort_nodes"]

_SHOWN = 20


def sort_nodes(model: onnx.ModelProto, where: str) -> int:
    """Sort the nodes in place, as little as need be; returns how many had to move before others.

    Args:
        model: its graph and functions; one that defines a name twice is left for ONNX's checker to refuse.
        where: what messages call the model.

    Raises:
        enginesmith_contract.errors.ModelError: `GraphHasCycle`, with the nodes of one cycle.
    """
    return _sort(model.graph, where) + sum(_sort(function, where) for function in model.functions)


def order_warnings(late: int) -> tuple[str, ...]:
    """Return what to say of so many nodes that had to move."""
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
    """Return for each node the indices of those whose outputs it reads; nothing where a name is defined twice."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers:
                return [frozenset()] * len(nodes)
            makers[name] = index
    return [frozenset(makers[name] for name in read_by(node) if name in makers) for node in nodes]


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those of the graphs inside it included, where these are not their own."""
    yield from filter(None, node.input)
    for inner in subgraphs(node):
        own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
        own |= {tensor.values.name for tensor in inner.sparse_initializer}
        own |= {name for one in inner.node for name in one.output}
        read = (name for one in inner.node for name in read_by(one))
        yield from (name for name in (*read, *(value.name for value in inner.output)) if name not in own)


def _order(needs: Sequence[frozenset[int]]) -> list[int]:
    """Return the indices in order, of those that are free the first one first; what lies in a cycle is left out."""
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
    # From a node that was not sorted one always comes to another such node, and so back to one that was seen.
    path: dict[int, None] = {}
    index = next(index for index in range(len(nodes)) if index not in sorted_ones)
    while index not in path:
        path[index] = None
        index = min(needs[index] - sorted_ones)
    seen = list(path)
    cycle = [label(nodes[one]) for one in reversed(seen[seen.index(index) :])]
    shown = [*cycle[:_SHOWN], *([f"{len(cycle) - _SHOWN} more"] if len(cycle) > _SHOWN else []), cycle[0]]
    return ModelError(
        "the model's nodes wait for each other",
        where=where,
        why=f"each of these reads what the one before it makes: {' -> '.join(shown)}",
        remedy="correct the inputs of one of these nodes, or export the model again",
        reason="GraphHasCycle",
    )
