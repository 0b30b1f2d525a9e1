"""Small graphs, cast to FP16 and computed in it: emulated, and by onnx's own evaluator."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_runtime.onnx_graphs.emulation import emulation_of
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.jobs import CastJob, CastResult

__all__ = ["Arrays", "Case", "Make", "assert_same_meaning", "cast_case", "cast_file", "f", "run_emulated", "scalar"]

Make = Callable[..., Path]
Arrays = Mapping[str, np.ndarray[Any, Any]]


class Case(NamedTuple):
    """One graph with the output `y`; its inputs have the types of `feed`, its outputs FP32."""

    nodes: list[onnx.NodeProto]
    feed: Arrays
    weights: Arrays = MappingProxyType({})
    opset: int = 17
    fixed: bool = False


def f(*values: float) -> np.ndarray[Any, Any]:
    """Return numbers as FP32."""
    return np.array(values, np.float32)


def scalar(value: float) -> np.ndarray[Any, Any]:
    """Return an FP32 tensor of rank 0."""
    return np.array(value, np.float32)


def assert_same_meaning(make_model: Make, folder: Path, case: Case, limit: float = 1e-3) -> CastResult:
    """Cast a graph and hold its answers against those of FP32; `limit` is a share of the largest one."""
    path = _write(make_model, case)
    want = ort.InferenceSession(path).run(None, dict(case.feed))[0]
    assert np.all(np.isfinite(want))
    cast, result = cast_file(path, folder)
    have = run_emulated(cast, case.feed)
    np.testing.assert_allclose(have, want, rtol=5e-3, atol=limit * float(np.max(np.abs(want))))
    exact: Any = ReferenceEvaluator(str(cast)).run(None, dict(case.feed))
    np.testing.assert_allclose(exact[0], want, rtol=5e-3, atol=limit * float(np.max(np.abs(want))))
    return result


def cast_case(make_model: Make, folder: Path, case: Case) -> CastResult:
    """Cast a graph; return what was said of it."""
    return cast_file(_write(make_model, case), folder)[1]


def cast_file(
    source: Path, folder: Path, keep: tuple[str, ...] = (), precision: Precision = Precision.FP16
) -> tuple[Path, CastResult]:
    """Cast a model into a new folder; return the file and what was said of it."""
    output = folder / "cast"
    output.mkdir()
    policy = PrecisionPolicy(default=precision, keep=keep)
    result = cast_model(CastJob(model=str(source), output=str(output), policy=policy))
    return output / result.files[0], result


def _write(make_model: Make, case: Case) -> Path:
    return make_model(
        case.nodes,
        inputs={
            key: (
                helper.np_dtype_to_tensor_dtype(array.dtype),
                [size if case.fixed else f"{key}{axis}" for axis, size in enumerate(array.shape)],
            )
            for key, array in case.feed.items()
        },
        outputs={"y": (TensorProto.FLOAT, None)},
        weights=case.weights,
        opset=case.opset,
    )


def run_emulated(path: Path, feed: Arrays) -> np.ndarray[Any, Any]:
    """Return the output of a model in emulated FP16 or BF16."""
    emulation = emulation_of(path)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options) if emulation is None else emulation.open(ort, path, options)
    return np.asarray(session.run(None, dict(feed))[0])
