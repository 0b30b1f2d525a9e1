"""`precision.keep`: node names and operator types, as they are or as shell patterns.

Exporters write brackets into names ("block[0]/mul"), which a shell pattern reads as a choice of characters. So an entry
names what it matches as a pattern and what it matches with its brackets read as they are.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

import onnx

from enginesmith_contract.errors import SpecError
from enginesmith_runtime.onnx_graphs.graph import all_nodes, label, node_names, subgraphs

__all__ = ["check_keep", "find_entry"]

_NEAR: Final = 0.4
_MOST_NAMES: Final = 3


def find_entry(keep: Iterable[str], name: str, operator: str) -> str | None:
    """Return the first entry that names a node, None where none does."""
    return next((entry for entry in keep if _names(entry, name) or _names(entry, operator)), None)


def check_keep(graph: onnx.GraphProto, keep: Sequence[str]) -> None:
    """Refuse an entry that names no node.

    Raises:
        enginesmith_contract.errors.SpecError: `KeepMatchesNothing`, with the nearest names.
    """
    nodes = list(zip(node_names(graph), (node.op_type for node in graph.node), strict=True))
    inner = (each for node in graph.node for one in subgraphs(node) for each in all_nodes(one))
    nodes += [(label(node), node.op_type) for node in inner]
    for number, entry in enumerate(keep):
        if any(find_entry([entry], name, operator) is not None for name, operator in nodes):
            continue
        known = sorted({word for pair in nodes for word in pair})
        near = get_close_matches(entry, known, n=_MOST_NAMES, cutoff=_NEAR)
        raise SpecError(
            f"{entry!r} matches no node of the model",
            where=f"precision.keep[{number}]",
            why=f"the nearest names are {', '.join(near)}" if near else "no node has a similar name or operator type",
            remedy="give a node's name or an operator type as the model has it (* and ? stand for any characters)",
            reason="KeepMatchesNothing",
        )


def _names(entry: str, word: str) -> bool:
    return fnmatchcase(word, entry) or fnmatchcase(word, entry.replace("[", "[[]"))
