"""Precision by rewriting the graph: every TensorRT major builds a strongly typed network the same way (ADR 0005).

A node computes in FP16 (or in BF16, with the same rules except those about range) if the ONNX schema of its operator
allows it and no file of this table keeps it in FP32:

| file | keeps in FP32 | |---|---| | `keep_list` | nodes that match `precision.keep` | | `cast_rules` | operators
without a usable FP16 form, nodes with inner graphs, arithmetic on shapes | | `layers` | nodes before the first layer
with weights and after the last one; nodes that compute constants | | `exactness` | comparisons, rounding, integers,
sampling positions, and the nodes between them and the inputs | | `magnitudes` | lost constants, factors, long sums,
quotients and the nodes before them (helpers: `growth`, `traits`) | | `twins` | differences of results of the same
layers, and the layers | | `distances` | distances by their three terms: squares, products with centres, and their sum |
| `bounds` | layers whose sums can leave FP16's range with values in the known range of their inputs | | `features` |
between layers: operators that are not on a list, and nodes that read no features; layers that read inputs | | `weights`
| nodes with a weight that is out of FP16's range or loses most digits | | `value_ranges` | nodes whose values leave
FP16's range in a reference run (requested by `cast_stage`) | | `columns` | nodes with small columns in a tensor that
also has large ones, in the same run (`extents`, `places`) | | `rehearsal` | nodes that produce NaN or infinity in
emulated FP16 (requested by `cast_stage`) | | `sweep` | nodes that cause wrong outputs with other values (from
`sweep_inputs`; `faults` finds the nodes) |

`cast_model` applies the first ten; the others are passed in `CastJob.keep` and `CastJob.tried`. The nodes of
`model.preprocess` also stay in FP32. `pairs` gives QuantizeLinear and DequantizeLinear the type of their neighbours.

A value has the type of its producer. There are Casts only between a producer and a consumer of different types, so a
value between two kept nodes is never rounded to FP16. Inputs and outputs of the graph keep their types.

Weights are converted one at a time from the old file to the new one, so only one weight is in memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, shape_inference

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.preprocess import NODES
from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, Dataflow
from enginesmith_runtime.onnx_graphs.graph import hoist_constants, name_nodes, opset_of, read_graph
from enginesmith_runtime.onnx_graphs.narrow import narrow_of
from enginesmith_runtime.onnx_graphs.opset import raise_for_bf16
from enginesmith_runtime.prepare.fp16.bounds import nodes_beyond_bounds
from enginesmith_runtime.prepare.fp16.cast_graph import Rewriter
from enginesmith_runtime.prepare.fp16.cast_rules import CastRules
from enginesmith_runtime.prepare.fp16.distances import nodes_of_distances
from enginesmith_runtime.prepare.fp16.exactness import nodes_that_need_exact_numbers
from enginesmith_runtime.prepare.fp16.features import Sources, nodes_that_widen
from enginesmith_runtime.prepare.fp16.keep_list import named_nodes
from enginesmith_runtime.prepare.fp16.layers import constants_in_fp32, nodes_outside_layers
from enginesmith_runtime.prepare.fp16.magnitudes import nodes_beyond_magnitudes
from enginesmith_runtime.prepare.fp16.pairs import OLDEST_OPSET, take_casts_off_pairs
from enginesmith_runtime.prepare.fp16.twins import nodes_before_differences
from enginesmith_runtime.prepare.fp16.weights import WeightWriter, nodes_beyond_range
from enginesmith_runtime.prepare.jobs import CastJob, CastResult
from enginesmith_runtime.prepare.structure import structure_digest

__all__ = ["cast_model", "kept_lines"]

_MOST_NAMES: Final = 5
_NORMALISES: Final = "it normalises the pixels (model.preprocess)"


def cast_model(job: CastJob) -> CastResult:
    """Write the model in FP16 or BF16 with FP32 inputs and outputs.

    Returns:
        The new files, and every float node that stayed in FP32, with the reason.
    """
    source = Path(job.model)
    narrow = narrow_of(job.policy.default)
    model = read_graph(source)
    name_nodes(model)
    if narrow.wide:
        raise_for_bf16(model)
        name_nodes(model)  # nodes that the conversion added
    hoist_constants(model)
    writer = WeightWriter(source.parent, Path(job.output))
    inferred = shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    rules = CastRules(model, _tensor_types(inferred), narrow)
    flow = replace(Dataflow.of(inferred, model, rules.types, source.parent), narrow=narrow)
    fragile = nodes_that_need_exact_numbers(flow) | dict(job.keep) | nodes_beyond_magnitudes(flow)
    fragile |= nodes_before_differences(flow) | nodes_of_distances(flow)
    fragile |= {} if narrow.wide else nodes_beyond_bounds(flow, job.limits, source.parent)
    meaning = narrow.said_of(nodes_outside_layers(flow) | dict(job.tried) | fragile)
    pixels = {node.name: _NORMALISES for node in model.graph.node if node.name.startswith(NODES)}
    kept = _kept_nodes(model.graph, rules, job.policy, meaning | pixels)
    held = job.tried.keys() - fragile.keys()
    sources = Sources(inputs=job.open_inputs, held=held)
    widened = narrow.said_of(nodes_that_widen(flow, rules, kept, fragile.keys(), sources))
    kept |= widened
    kept |= constants_in_fp32(flow, kept, {node.name: rules.is_convertible(node) for node in model.graph.node})
    heavy = nodes_beyond_range(model.graph, rules, frozenset(kept), source.parent)
    kept |= dict.fromkeys(heavy, narrow.said("a weight is outside FP16's range"))
    halves = any(rules.is_convertible(node) and node.name not in kept for node in model.graph.node)
    judged = map(narrow.said, _judged_line(job.generated if halves else ()))
    half = Rewriter(model.graph, rules, frozenset(kept), writer).rewrite()
    if opset_of(model) >= OLDEST_OPSET:
        freed = take_casts_off_pairs(model.graph, half, narrow, source.parent)
        kept = {name: reason for name, reason in kept.items() if name not in freed}
    files = writer.finish(model, source.name)
    told = {*meaning, *widened, *heavy} - pixels.keys()
    said = {name: reason for name, reason in kept.items() if name in told}
    bf16 = [] if narrow.wide else [node.name for node in model.graph.node if _reads_bf16(node, rules.types)]
    lines = [*judged, *kept_lines(said), *_bf16_line(bf16)]
    structure = structure_digest(read_graph(Path(job.output) / files[0]))
    return CastResult(files=files, kept=kept, said=tuple(said), warnings=tuple(lines), structure_digest=structure)


def _tensor_types(inferred: onnx.GraphProto) -> dict[str, int]:
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    types |= {tensor.name: int(tensor.data_type) for tensor in inferred.initializer}
    return types


def _reads_bf16(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    return node.op_type != "Cast" and any(types.get(name) == TensorProto.BFLOAT16 for name in node.input)


def _judged_line(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    advice = "set production-like values in verification.inputs to judge it on them"
    return (f"FP16 was judged on generated values of {_listed(names)}; {advice}",)


def _bf16_line(names: Sequence[str]) -> Iterator[str]:
    if names:
        verb = "computes" if len(names) == 1 else "compute"
        yield f"{_listed(names)} {verb} in BF16 as in the source: precision fp16 changes FP32 only"


def _kept_nodes(
    graph: onnx.GraphProto, rules: CastRules, policy: PrecisionPolicy, meaning: Mapping[str, str]
) -> dict[str, str]:
    kept: dict[str, str] = {}
    named = named_nodes(graph, policy.keep)
    for node in graph.node:
        if not rules.touches_floats(node):
            continue
        entry = named.get(node.name)
        reason = f"precision.keep names it ({entry})" if entry else rules.narrow.said(rules.why_kept(node))
        if not reason and rules.is_convertible(node):
            reason = meaning.get(node.name, "")
        if reason:
            kept[node.name] = reason
    return kept


def kept_lines(kept: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each cause, with the first nodes that stay in FP32 because of it."""
    causes = {name: reason.rpartition(CAUSE)[2] for name, reason in kept.items()}
    for cause in dict.fromkeys(causes.values()):
        names = [name for name, each in causes.items() if each == cause]
        yield f"{_listed(names)} {'stays' if len(names) == 1 else 'stay'} in FP32: {cause}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
