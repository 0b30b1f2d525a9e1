"""Precision by rewriting the graph: every TensorRT major builds a strongly typed network the same way (ADR 0005).

A node computes in FP16 when ONNX's own schema of its operator takes FP16 where the model gives FP32; all else stays.
A value has the type that its producer gives it, and Casts stand only where producer and consumer differ, so a value
between two kept nodes never passes through FP16. Inputs and outputs of the graph keep their types.

Weights go one at a time from the old file to the new one, so a model of any size needs one weight's memory.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
from onnx import shape_inference

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_runtime.prepare.cast_graph import Rewriter, hoist_constants
from enginesmith_runtime.prepare.cast_rules import CastRules
from enginesmith_runtime.prepare.graph import name_nodes, read_graph
from enginesmith_runtime.prepare.jobs import CastJob, CastResult
from enginesmith_runtime.prepare.structure import structure_digest
from enginesmith_runtime.prepare.weights import WeightWriter, nodes_beyond_range

__all__ = ["cast_model"]


def cast_model(job: CastJob) -> CastResult:
    """Write the model in FP16 with FP32 inputs and outputs.

    Returns:
        The new files, and every node that stayed in FP32 though it computes with floats, with the reason.
    """
    source = Path(job.model)
    model = read_graph(source)
    name_nodes(model)
    hoist_constants(model)
    writer = WeightWriter(source.parent, Path(job.output))
    rules = CastRules(model, _tensor_types(model))
    kept = _kept_nodes(model.graph, rules, job.policy, job.keep)
    heavy = nodes_beyond_range(model.graph, rules, frozenset(kept), source.parent)
    kept |= dict.fromkeys(heavy, "a weight is beyond FP16's range")
    Rewriter(model.graph, rules, frozenset(kept), writer).rewrite()
    files = writer.finish(model, source.name)
    warnings = tuple(f"{name}: a weight is beyond FP16's range, so the node stays in FP32" for name in heavy)
    structure = structure_digest(read_graph(Path(job.output) / files[0]))
    return CastResult(files=files, kept=kept, warnings=warnings, structure_digest=structure)


def _tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    types |= {tensor.name: int(tensor.data_type) for tensor in inferred.initializer}
    return types


def _kept_nodes(
    graph: onnx.GraphProto, rules: CastRules, policy: PrecisionPolicy, auto: Mapping[str, str]
) -> dict[str, str]:
    kept: dict[str, str] = {}
    for node in graph.node:
        if not rules.touches_floats(node):
            continue
        pattern = next((p for p in policy.keep if fnmatchcase(node.name, p) or fnmatchcase(node.op_type, p)), None)
        reason = f"precision.keep names it ({pattern})" if pattern else auto.get(node.name) or rules.why_kept(node)
        if reason:
            kept[node.name] = reason
    return kept
