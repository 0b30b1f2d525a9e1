"""Nodes whose values leave FP16's range in a reference run: `precision.autoKeep`.

Every FP32 value of the main graph is looked at once. The outputs of a run are held in memory together, so they are
asked for in groups, each with a run of its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, shape_inference

from enginesmith_runtime.prepare.graph import name_nodes, read_graph
from enginesmith_runtime.prepare.inputs import Array, fill_inputs
from enginesmith_runtime.prepare.jobs import RangeJob
from enginesmith_runtime.prepare.reference_runs import bound_memory

__all__ = ["find_out_of_range"]

_GROUP: Final = 64
_MAX: Final = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL: Final = float(np.finfo(np.float16).smallest_normal)
_SEVERITY_FATAL: Final = 4


def find_out_of_range(job: RangeJob) -> dict[str, str]:
    """Return the nodes that make or read a value outside FP16's range, with what was seen.

    A value is outside where its largest finite magnitude is above 65504, or where all of it is below the smallest
    normal number (6.1e-5), so that most of its digits would go.
    """
    bound_memory(job.memory_bytes)
    path = Path(job.model)
    model = read_graph(path)
    name_nodes(model)
    inputs = fill_inputs(job.feed, job.shapes, "range")
    names = _float_values(model)
    found: dict[str, str] = {}
    for start in range(0, len(names), _GROUP):
        found |= _outside(model, path.parent, inputs, names[start : start + _GROUP])
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        for name in (*node.output, *node.input):
            if name in found and node.op_type != "Constant":
                reasons.setdefault(node.name, f"its values {found[name]}")
    return reasons


def _float_values(model: onnx.ModelProto) -> list[str]:
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    made = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    return [name for name in made if types.get(name) == TensorProto.FLOAT]


def _outside(model: onnx.ModelProto, folder: Path, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, str]:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = _SEVERITY_FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = session.run(list(names), dict(inputs))
    described = {name: _described(array) for name, array in zip(names, outputs, strict=True)}
    return {name: words for name, words in described.items() if words}


def _described(array: Array) -> str:
    magnitudes = np.abs(array[np.isfinite(array)])
    largest = float(np.max(magnitudes, initial=0.0))
    if largest > _MAX:
        return f"reach {largest:.3g}, and FP16 ends at 65504"
    if 0 < largest < _SMALLEST_NORMAL:
        return f"are all below {largest:.3g}, where FP16 has few digits left"
    return ""
