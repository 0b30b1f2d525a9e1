"""Precision by rewriting the graph: every TensorRT major builds a strongly typed network the same way (ADR 0005).

A node computes in FP16 when ONNX's own schema of its operator takes FP16 where the model gives FP32, and when FP16 can
hold what it computes with; all else stays. A value has the type that its producer gives it, and Casts stand only where
producer and consumer differ, so a value between two kept nodes never passes through FP16. Inputs and outputs of the
graph keep their types.

Weights go one at a time from the old file to the new one, so a model of any size needs one weight's memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, shape_inference

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, Dataflow
from enginesmith_runtime.onnx_graphs.graph import name_nodes, read_graph
from enginesmith_runtime.prepare.cast_graph import Rewriter, hoist_constants
from enginesmith_runtime.prepare.cast_rules import CastRules
from enginesmith_runtime.prepare.exactness import nodes_that_need_exact_numbers
from enginesmith_runtime.prepare.jobs import CastJob, CastResult
from enginesmith_runtime.prepare.keep_list import find_entry
from enginesmith_runtime.prepare.magnitudes import nodes_beyond_magnitudes
from enginesmith_runtime.prepare.structure import structure_digest
from enginesmith_runtime.prepare.weights import WeightWriter, nodes_beyond_range

__all__ = ["cast_model"]

_MOST_NAMES: Final = 5


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
    inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    rules = CastRules(model, _tensor_types(inferred))
    flow = Dataflow.of(inferred, model.graph, rules.types, source.parent)
    meaning = dict(job.keep) | nodes_beyond_magnitudes(flow)
    meaning = nodes_that_need_exact_numbers(flow) | meaning
    kept = _kept_nodes(model.graph, rules, job.policy, meaning)
    heavy = nodes_beyond_range(model.graph, rules, frozenset(kept), source.parent)
    kept |= dict.fromkeys(heavy, "a weight is outside FP16's range")
    Rewriter(model.graph, rules, frozenset(kept), writer).rewrite()
    files = writer.finish(model, source.name)
    bf16 = [node.name for node in model.graph.node if _reads_bf16(node, rules.types)]
    said = {name: reason for name, reason in kept.items() if name in meaning or name in heavy}
    structure = structure_digest(read_graph(Path(job.output) / files[0]))
    return CastResult(
        files=files, kept=kept, warnings=(*_in_lines(said), *_bf16_line(bf16)), structure_digest=structure
    )


def _tensor_types(inferred: onnx.GraphProto) -> dict[str, int]:
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    types |= {tensor.name: int(tensor.data_type) for tensor in inferred.initializer}
    return types


def _reads_bf16(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    return node.op_type != "Cast" and any(types.get(name) == TensorProto.BFLOAT16 for name in node.input)


def _bf16_line(names: Sequence[str]) -> Iterator[str]:
    if names:
        verb = "computes" if len(names) == 1 else "compute"
        yield f"{_listed(names)} {verb} in BF16 as in the source: precision fp16 changes FP32 only"


def _kept_nodes(
    graph: onnx.GraphProto, rules: CastRules, policy: PrecisionPolicy, meaning: Mapping[str, str]
) -> dict[str, str]:
    kept: dict[str, str] = {}
    for node in graph.node:
        if not rules.touches_floats(node):
            continue
        entry = find_entry(policy.keep, node.name, node.op_type)
        reason = f"precision.keep names it ({entry})" if entry else rules.why_kept(node)
        if not reason and rules.is_convertible(node):
            reason = meaning.get(node.name, "")
        if reason:
            kept[node.name] = reason
    return kept


def _in_lines(kept: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each cause, with the first nodes that stay because of it."""
    causes = {name: reason.rpartition(CAUSE)[2] for name, reason in kept.items()}
    for cause in dict.fromkeys(causes.values()):
        names = [name for name, each in causes.items() if each == cause]
        yield f"{_listed(names)} {'stays' if len(names) == 1 else 'stay'} in FP32: {cause}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
