"""Writes quantised models from histograms: one graph for TensorRT, and one for ONNX Runtime."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import onnx
from onnx.external_data_helper import load_external_data_for_model

from enginesmith_contract.auto_keep import KeepSearch
from enginesmith_contract.backends import Precision
from enginesmith_contract.calibration import Calibration
from enginesmith_contract.errors import ModelError
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.prepare.fp16.keep_list import named_nodes
from enginesmith_runtime.prepare.quantize import onnxruntime_placement, tensorrt_placement
from enginesmith_runtime.prepare.quantize.histograms import Histogram, read_histograms
from enginesmith_runtime.prepare.quantize.jobs import Quantized, QuantizeJob
from enginesmith_runtime.prepare.quantize.placement_rules import check_rules
from enginesmith_runtime.prepare.quantize.ranges import choose_range, refuse_same_samples, refuse_unusable
from enginesmith_runtime.prepare.structure import structure_digest

__all__ = ["kept_nodes", "ranges_of", "save_model", "write_quantized"]

_LEVELS: Final[Mapping[Precision, int]] = {Precision.INT8: 127, Precision.FP8: 448}
# ONNX files are limited to 2 GiB.
_MOST_INLINE_BYTES: Final = 1 << 30
_NO_KERNELS: Final = (
    "no node computes in INT8 for ONNX Runtime: its integer kernels support Conv, Gemm and MatMul with FP32 weights"
)
_SENSITIVE: Final = "the answers depend on it most (precision.autoKeep)"


def write_quantized(job: QuantizeJob) -> Quantized:
    """Write both models.

    Raises:
        enginesmith_contract.errors.ModelError: `CalibrationUnusable` or `RangeMissing` with the tensors, or
            `NotQuantisable`.
    """
    calibration, kind = job.policy.calibration, job.policy.default
    if calibration is None:
        raise ValueError(job.policy)
    histograms = read_histograms(Path(job.histograms).read_bytes())
    entries = kept_nodes(read_graph(Path(job.source)).graph, job.policy.keep, job.sources)
    named = {name: f"precision.keep names it ({entry})" for name, entry in entries.items()}
    output = Path(job.output)
    normal, cast = read_graph(Path(job.model)), read_graph(Path(job.cast))
    found = _found(job.found.tensorrt if job.found else None)
    kept = found | named
    ranges = ranges_of(tensorrt_placement.tensors_to_watch(normal, kept), histograms, calibration, kind)
    tensorrt = tensorrt_placement.place(cast, ranges, kept=kept, kind=kind, weights=Path(job.cast).parent)
    if named and not _has_8_bits(tensorrt):
        raise ModelError(
            "the entries keep every node that could be quantised",
            where="precision.keep",
            why=f"{', '.join(job.policy.keep)}: nothing is left in {kind}",
            remedy="name fewer nodes, or choose fp16",
            reason="NotQuantisable",
        )
    broken = check_rules(tensorrt)
    if broken:
        raise ModelError(
            "the quantised model breaks a rule of TensorRT",
            where=Path(job.source).name,
            why="; ".join(broken),
            remedy="keep these nodes (precision.keep), and report this bug of the placement",
            reason="NotQuantisable",
        )
    quantised = _quantised_nodes(tensorrt.graph)
    files = save_model(tensorrt, output / "tensorrt", Path(job.cast).parent)
    del cast, tensorrt
    others: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    others_kept = _found(job.found.onnxruntime if job.found else None) | named
    if kind is Precision.INT8:
        ranges = ranges_of(onnxruntime_placement.tensors_to_watch(normal, others_kept), histograms, calibration, kind)
        folder = Path(job.model).parent
        placed = onnxruntime_placement.place(normal, ranges, kept=others_kept, weights=folder)
        warnings = () if _has_8_bits(placed) else (_NO_KERNELS,)
        others = save_model(placed, output / "onnxruntime", folder)
    return Quantized(
        tensorrt=files,
        onnxruntime=others,
        kept=found | named,
        onnxruntime_kept=others_kept,
        quantised=quantised,
        warnings=warnings,
        structure_digest=structure_digest(read_graph(output / files[0])),
    )


def _has_8_bits(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def _quantised_nodes(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the nodes with value and weight in 8 bits."""
    made = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return tuple(node.name for node in graph.node if made.issuperset(node.input[:2]) and node.input[1:2])


def _found(searched: KeepSearch | None) -> dict[str, str]:
    return dict.fromkeys(searched.kept, _SENSITIVE) if searched else {}


def kept_nodes(
    source: onnx.GraphProto, keep: Collection[str], sources: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """Return the nodes of the normal form that match `precision.keep`, each with the entry.

    Args:
        source: Graph with the nodes that `keep` names.
        keep: Entries.
        sources: Nodes of the source for each node of the normal form.
    """
    named = named_nodes(source, keep)
    found = {name: [named[one] for one in sorted(stands_for) if one in named] for name, stands_for in sources.items()}
    return {name: entries[0] for name, entries in found.items() if entries}


def ranges_of(
    tensors: Collection[str], histograms: Mapping[str, Histogram], calibration: Calibration, kind: Precision
) -> dict[str, float]:
    """Return the range of each tensor.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationUnusable` with every tensor without a good range.
    """
    used = {name: histograms[name] for name in tensors if name in histograms}
    refuse_unusable(used)
    refuse_same_samples(histograms)
    return {name: choose_range(each, calibration, _LEVELS[kind]) for name, each in used.items()}


def save_model(model: onnx.ModelProto, folder: Path, weights: Path) -> tuple[str, ...]:
    """Write a model. Weights in files of another folder are loaded.

    Returns:
        Its files relative to the parent of `folder`, the ONNX file first.
    """
    folder.mkdir()
    load_external_data_for_model(model, str(weights))
    is_large = model.ByteSize() > _MOST_INLINE_BYTES
    onnx.save(
        model, str(folder / "model.onnx"), save_as_external_data=is_large, location="model.weights", size_threshold=1024
    )
    names = ("model.onnx", "model.weights") if is_large else ("model.onnx",)
    return tuple(f"{folder.name}/{name}" for name in names)
