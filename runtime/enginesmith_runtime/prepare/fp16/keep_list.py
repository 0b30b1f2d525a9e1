"""`precision.keep`: node names and operator types, as they are or as shell patterns, and `from:TENSOR`.

Exporters write brackets into names ("block[0]/mul"), which are a choice of characters in a shell pattern. So an entry
matches names as a pattern, and also with its brackets taken literally. `from:TENSOR` matches every node between a
tensor and the outputs: the nodes that read it, those that read their results, and so on.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

import onnx

from enginesmith_contract.errors import SpecError
from enginesmith_runtime.onnx_graphs.graph import all_nodes, label, node_names, subgraphs
from enginesmith_runtime.onnx_graphs.order import read_by

__all__ = ["check_keep", "named_nodes"]

_FROM: Final = "from:"
_NEAR: Final = 0.4
_MOST_NAMES: Final = 3


def named_nodes(graph: onnx.GraphProto, keep: Iterable[str]) -> dict[str, str]:
    """Return the nodes of a graph that entries match, each with the first matching entry.

    Nodes have the names that `name_nodes` gives them.
    """
    found: dict[str, str] = {}
    names = node_names(graph)
    for entry in keep:
        below = _nodes_below(graph, names, entry) if entry.startswith(_FROM) else frozenset()
        for name, node in zip(names, graph.node, strict=True):
            if name in below or _names(entry, name) or _names(entry, node.op_type):
                found.setdefault(name, entry)
    return found


def check_keep(graph: onnx.GraphProto, keep: Sequence[str]) -> None:
    """Refuse an entry that matches no node.

    Raises:
        enginesmith_contract.errors.SpecError: `KeepMatchesNothing` with the most similar names.
    """
    inner = [each for node in graph.node for one in subgraphs(node) for each in all_nodes(one)]
    others = {word for node in inner for word in (label(node), node.op_type)}
    for number, entry in enumerate(keep):
        if named_nodes(graph, [entry]) or any(_names(entry, word) for word in others):
            continue
        tensor = entry.removeprefix(_FROM) if entry.startswith(_FROM) else ""
        known = _tensors(graph) if tensor else {*node_names(graph), *(node.op_type for node in graph.node), *others}
        maker = next((label(node) for node in graph.node if tensor and tensor in node.output), None)
        kind = ", an output of the model" if tensor in {value.name for value in graph.output} else ""
        if maker is not None:
            raise SpecError(
                f"{entry!r} matches no node of the model",
                where=f"precision.keep[{number}]",
                why=f"no node follows the tensor {tensor!r}{kind}",
                remedy=f"name a tensor before it, or the node {maker!r}, which makes it",
                reason="KeepMatchesNothing",
            )
        near = get_close_matches(tensor or entry, sorted(known), n=_MOST_NAMES, cutoff=_NEAR)
        what = "no node reads a tensor of this name" if tensor else "no node has a similar name or operator type"
        raise SpecError(
            f"{entry!r} matches no node of the model",
            where=f"precision.keep[{number}]",
            why=f"the nearest names are {', '.join(near)}" if near else what,
            remedy="give a tensor that a node reads, as the model names it"
            if tensor
            else "give a node's name or an operator type as the model has it (* and ? stand for any characters)",
            reason="KeepMatchesNothing",
        )


def _nodes_below(graph: onnx.GraphProto, names: Sequence[str], entry: str) -> frozenset[str]:
    reached = {entry.removeprefix(_FROM)}
    below: set[str] = set()
    for name, node in zip(names, graph.node, strict=True):  # in topological order
        if reached.intersection(read_by(node)):
            below.add(name)
            reached.update(filter(None, node.output))
    return frozenset(below)


def _tensors(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in read_by(node)}


def _names(entry: str, word: str) -> bool:
    return fnmatchcase(word, entry) or fnmatchcase(word, entry.replace("[", "[[]"))
