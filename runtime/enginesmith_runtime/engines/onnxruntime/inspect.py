"""Counts the contents of an optimised model: nodes by operator and by provider, weights by datatype."""

from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from enginesmith_contract.providers import Provider

__all__ = ["inspect_model"]


def inspect_model(runtime: Any, model: Path, provider: Provider) -> dict[str, JsonValue]:
    """Return the number of nodes by operator, of weights by datatype, and of nodes by provider.

    Args:
        runtime: The onnxruntime module.
        model: The optimised model.
        provider: Provider that will run the model. The CPU provider runs the nodes that it does not support.
    """
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    operators = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.node)
    weights = Counter(onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer)
    return {
        "nodes": len(graph.node),
        "operators": dict(sorted(operators.items())),
        "weights": dict(sorted(weights.items())),
        "providers": _count_by_provider(runtime, model, provider),
    }


def _count_by_provider(runtime: Any, model: Path, provider: Provider) -> dict[str, JsonValue]:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = runtime.InferenceSession(
        str(model), options, providers=[(provider.execution_provider, dict(provider.options))]
    )
    if not hasattr(session, "get_provider_graph_assignment_info"):  # since ONNX Runtime 1.24
        return {}
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(sorted(counts.items()))
