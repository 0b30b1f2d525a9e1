"""ScatterND in ONNX Runtime, whose threads write to the same element without a lock.

With a reduction, one of two simultaneous updates of an element is lost. `use_deterministic_compute` does not help, but
a single thread does (measured with 1.20 and later; ScatterElements is not affected). Without a reduction, ONNX does not
define which of two updates of an element is kept.
"""

from collections.abc import Iterator, Sequence

import onnx

from enginesmith_runtime.onnx_graphs.graph import all_nodes, is_onnx_domain, label, subgraphs

__all__ = ["losing_scatters", "thread_warnings", "unordered_scatters"]


def losing_scatters(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the nodes that lose updates on several threads, as "node 'sum' (ScatterND, add)"."""
    return tuple(
        f"node {label(node)!r} (ScatterND, {_reduction(node)})" for node in _scatters(model) if _reduction(node)
    )


def thread_warnings(losing: Sequence[str]) -> tuple[str, ...]:
    """Return the warning that a model runs on one thread, if it does."""
    if not losing:
        return ()
    lost = f"ONNX Runtime loses updates of {', '.join(losing)} when several threads write to one element"
    return (f"threads: one on a CPU, since {lost}",)


def unordered_scatters(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the nodes whose result depends on the order of threads if indices repeat."""
    return tuple(f"node {label(node)!r} (ScatterND)" for node in _scatters(model) if not _reduction(node))


def _scatters(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    inner = (graph for function in model.functions for node in function.node for graph in subgraphs(node))
    nodes = [*all_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    nodes += [node for graph in inner for node in all_nodes(graph)]
    return (node for node in nodes if node.op_type == "ScatterND" and is_onnx_domain(node.domain))


def _reduction(node: onnx.NodeProto) -> str:
    said = next((attribute.s.decode() for attribute in node.attribute if attribute.name == "reduction"), "none")
    return "" if said == "none" else said
