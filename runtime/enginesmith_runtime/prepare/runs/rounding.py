"""Measures the sensitivity of a model to rounding, because FP32 implementations differ in the last bits.

Every weight of a product or a convolution, and every float input, is increased or decreased by 2^-23 of itself. The
outputs of an ordinary model change by 1e-6 of their scale. They change much more if the model subtracts nearly equal
values, or if its outputs for the reference inputs are close to zero. TensorRT cannot be more exact than that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from enginesmith_contract.tensors import DType
from enginesmith_runtime.comparison.compare import compare, learn_all_scales
from enginesmith_runtime.fetch.external_data import tensor_bytes
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import hoist_constants, read_graph
from enginesmith_runtime.prepare.jobs import Feed, RoundingJob
from enginesmith_runtime.prepare.runs.inputs import Array
from enginesmith_runtime.prepare.runs.reference_runs import bound_memory, exact_options, open_exact, run_session

__all__ = ["measure_rounding", "with_other_bits"]

_LAST_BIT: Final = np.float32(2.0**-23)
_WEIGHT_RANK: Final = 2  # scales, sizes and thresholds have lower ranks and are not changed
_MOST_BYTES: Final = 256 << 20  # limit of all weights, which are in memory three times


def measure_rounding(job: RoundingJob) -> Mapping[str, float]:
    """Return the largest difference of each float output over the runs."""
    bound_memory(job.memory_bytes)
    path = Path(job.model)
    random = np.random.default_rng(0)
    session = _open(path, job.feed, random)
    archives = [Path(job.folder) / f"{run}.npz" for run in job.runs]
    scales = learn_all_scales(job.feed.facts.outputs, archives)
    worst = dict.fromkeys(scales, 0.0)
    for run, archive in zip(job.runs, archives, strict=True):
        feed = job.feed.at(job.given.get(run, {}))
        with np.load(archive, allow_pickle=False) as stored:
            inputs = {spec.name: _moved(stored[f"input:{spec.name}"], spec.dtype, random) for spec in feed.facts.inputs}
            before = {name: np.asarray(stored[f"output:{name}"]) for name in scales}
        after = dict(zip(scales, run_session(session, list(scales), feed, inputs), strict=True))
        for spec in feed.facts.outputs:
            if spec.name in scales:
                parts = compare(after[spec.name], before[spec.name], spec.dtype, scales[spec.name])
                found = max((part.difference for part in parts if part.mismatches is None), default=0.0)
                worst[spec.name] = max(worst[spec.name], found)
    return {name: value for name, value in worst.items() if np.isfinite(value)}


def _open(path: Path, feed: Feed, random: np.random.Generator) -> ort.InferenceSession:
    """Return a session of the model with changed last bits in its weights. A large model is not changed."""
    model = read_graph(path)
    if feed.emulated and (emulation := emulate(model)) is not None:
        return emulation.open(ort, path, exact_options(feed.threads))
    hoist_constants(model)
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= _WEIGHT_RANK
    ]
    if sum(map(tensor_bytes, weights)) > _MOST_BYTES:
        return ort.InferenceSession(str(path), exact_options(feed.threads), providers=["CPUExecutionProvider"])
    for tensor in weights:
        values = numpy_helper.to_array(tensor, str(path.parent))
        tensor.CopyFrom(numpy_helper.from_array(with_other_bits(values, random), tensor.name))
    return open_exact(model, path.parent, feed.threads)


def _moved(array: Array, dtype: DType, random: np.random.Generator) -> Array:
    """Return the input with changed last bits if it is FP32. Texts are converted for ONNX Runtime."""
    if dtype is DType.BYTES:
        return np.char.decode(array.astype(np.bytes_), "utf-8").astype(object)
    return with_other_bits(array, random) if dtype is DType.FP32 else np.asarray(array)


def with_other_bits(values: Array, random: np.random.Generator) -> Array:
    """Return numbers as FP32, each increased or decreased by its last bit."""
    signs = random.integers(0, 2, values.shape).astype(np.float32) * 2 - 1
    return np.asarray(values.astype(np.float32) * (1 + signs * _LAST_BIT), dtype=np.float32)
