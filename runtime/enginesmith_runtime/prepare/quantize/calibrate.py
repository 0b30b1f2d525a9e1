"""Writes the normal form of a model and the histograms of its tensors over the calibration data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from enginesmith_contract.tensors import DType
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.prepare.fp16.value_ranges import describe_extent, nodes_at
from enginesmith_runtime.prepare.quantize import onnxruntime_placement, tensorrt_placement
from enginesmith_runtime.prepare.quantize.histograms import Histogram, collect, read_histograms, write_histograms
from enginesmith_runtime.prepare.quantize.jobs import Calibrated, CalibrateJob
from enginesmith_runtime.prepare.quantize.normal_form import normalise_file
from enginesmith_runtime.prepare.quantize.samples import open_data

__all__ = ["calibrate"]

_HISTOGRAMS: Final = "histograms.bin"
# Use a quarter. The rest is for the run, the sample and the weights.
_SHARE_OF_MEMORY: Final = 4


def calibrate(job: CalibrateJob, tick: Callable[[float], None]) -> Calibrated:
    """Write both. `tick` receives the completed share of the samples.

    Raises:
        enginesmith_contract.errors.ModelError: `NotQuantisable`.
        enginesmith_contract.errors.SpecError: see `open_samples` and `collect`.
    """
    output, data = Path(job.output), job.data
    file = output / "normal" / "model.onnx"
    file.parent.mkdir()
    normal = normalise_file(Path(job.model), file.parent)
    inputs = tuple(spec.name for spec in job.feed.facts.inputs if spec.dtype is DType.FP32)
    watched = (
        *inputs,
        *tensorrt_placement.tensors_to_watch(normal.model),
        *onnxruntime_placement.tensors_to_watch(normal.model),
    )
    file.write_bytes(normal.model.SerializeToString())
    sources = {name: tuple(sorted(stands_for)) for name, stands_for in normal.sources.items()}
    del normal
    with open_data(data, job.feed.facts, output) as samples:
        split = samples.split()
        if job.known is not None:
            histograms = read_histograms(Path(job.known).read_bytes())
        else:
            histograms = collect(
                file,
                samples.read(split.calibration),
                tuple(dict.fromkeys(watched)),
                memory_bytes=job.memory_bytes // _SHARE_OF_MEMORY,
                threads=job.feed.threads,
                tick=lambda done: tick(done / len(split.calibration)),
            )
            (output / _HISTOGRAMS).write_bytes(write_histograms(histograms))
    return Calibrated(
        model=str(file.relative_to(output)),
        histograms=job.known or str(output / _HISTOGRAMS),
        sources=sources,
        held_out=split.held_out,
        input_ranges={name: (histograms[name].lowest, histograms[name].highest) for name in inputs},
        beyond_fp16=nodes_at(read_graph(file).graph, _beyond_fp16(histograms)),
    )


def _beyond_fp16(histograms: Mapping[str, Histogram]) -> dict[str, str]:
    """Return the tensors that do not fit FP16 in a sample, which noise of the same range may not show."""
    found = {name: describe_extent(each.amax, small=False) for name, each in histograms.items()}
    return {name: f"{words} (calibration data)" for name, words in found.items() if words}
