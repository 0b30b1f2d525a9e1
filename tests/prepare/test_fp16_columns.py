"""Columns of one tensor in different units: the small ones keep their digits where the large ones are in FP16."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Make, run_emulated

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.fp16.value_ranges import find_out_of_range
from enginesmith_runtime.prepare.jobs import CastJob, CastResult, Feed, RangeJob
from enginesmith_runtime.prepare.model_file.facts import facts_of

F = TensorProto.FLOAT
node = helper.make_node
Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(4)
UNITS = np.array([60, 5e-6, 5e-7, 1], np.float32)


class Net(NamedTuple):
    """Nodes from `r`, features, to `y`; `axis`: of the columns; `small`: nodes that have to stay in FP32."""

    nodes: list[onnx.NodeProto]
    weights: Arrays
    small: set[str]
    axis: int = -1
    image: bool = False


def _w(*shape: int) -> Array:
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return np.asarray(RANDOM.standard_normal(shape) / np.sqrt(fan), np.float32)


def _units(columns: int, axes: int = 0) -> Array:
    return np.tile(UNITS, columns // len(UNITS)).reshape(-1, *(1,) * axes)


LAST = node("Gemm", ["r", "b", "c"], ["y"], name="last")
HEAD = node("Conv", ["r", "b", "c"], ["z"], name="last")
# What reads the small columns alone, and enlarges them.
LARGE = np.where(_units(64, 1) < 1e-3, 4e4, 1e-3).astype(np.float32) * _w(64, 8)
NETS = {
    "a matrix": Net([LAST], {"b": _w(128, 4) * UNITS, "c": _w(4, 1)[:, 0] * UNITS}, {"last"}),
    "a matrix that is turned": Net(
        [node("Gemm", ["r", "b"], ["y"], name="last", transB=1)], {"b": (_w(128, 4) * UNITS).T.copy()}, {"last"},
    ),
    "a matrix, a bias and a Relu": Net(
        [node("MatMul", ["r", "b"], ["m"], name="last"), node("Add", ["m", "c"], ["q"], name="add"),
         node("Relu", ["q"], ["y"], name="end")],
        {"b": np.abs(_w(128, 4)) * UNITS, "c": np.abs(_w(4, 1)[:, 0]) * UNITS}, {"last", "add", "end"},
    ),
    "columns that are parts of rows": Net(
        [node("MatMul", ["r", "b"], ["z"], name="last"), node("Reshape", ["z", "s"], ["y"], name="rows")],
        {"b": _w(128, 12) * _units(12)[None, :], "s": np.array([-1, 3, 4])}, {"last", "rows"},
    ),
    "columns that are cut and put together": Net(
        [node("MatMul", ["r", "b"], ["z"], name="last"), node("Split", ["z", "s"], ["p", "q"], name="split", axis=1),
         node("Gather", ["q", "order"], ["t"], name="turn", axis=1),
         node("Concat", ["t", "p"], ["y"], name="join", axis=1)],
        {"b": _w(128, 4) * UNITS, "s": np.array([1, 3]), "order": np.array([2, 0, 1])}, {"last"},
    ),
    "two heads": Net(
        [node("MatMul", ["r", "b"], ["z"], name="large"), node("MatMul", ["r", "c"], ["t"], name="small"),
         node("Concat", ["z", "t"], ["y"], name="join", axis=1)],
        {"b": _w(128, 4), "c": _w(128, 4) * np.float32(1e-6)}, {"small"},
    ),
    "a matrix between layers": Net(
        [node("MatMul", ["r", "b"], ["z"], name="middle"), node("MatMul", ["z", "d"], ["y"], name="last")],
        {"b": _w(128, 64) * _units(64)[None, :], "d": LARGE}, {"middle", "last"},
    ),
    "factors between layers": Net(
        [node("MatMul", ["r", "b"], ["z"], name="before"), node("Mul", ["z", "s"], ["t"], name="scale"),
         node("MatMul", ["t", "d"], ["y"], name="last")],
        {"b": _w(128, 64), "s": _units(64) * np.float32(0.1), "d": LARGE}, {"scale", "last"},
    ),
    "channels of a map": Net(
        [node("Conv", ["r", "b", "c"], ["y"], name="last")],
        {"b": _w(4, 32, 1, 1) * _units(4, 3), "c": _w(4, 1)[:, 0] * UNITS}, {"last"}, 1, image=True,
    ),
    "channels of a map that become rows": Net(
        [HEAD, node("Reshape", ["z", "s"], ["t"], name="parts"),
         node("Transpose", ["t"], ["u"], name="turn", perm=[0, 1, 3, 4, 2]),
         node("Reshape", ["u", "e"], ["y"], name="rows")],
        {"b": _w(12, 32, 1, 1) * _units(12, 3), "c": _w(12, 1)[:, 0] * _units(12), "s": np.array([1, 3, 4, 16, 16]),
         "e": np.array([1, -1, 4])}, {"last"}, image=True,
    ),
    "a normalisation": Net(
        [node("Conv", ["r", "b"], ["z"], name="before", pads=[1] * 4),
         node("BatchNormalization", ["z", "g", "o", "o", "v"], ["y"], name="norm")],
        {"b": _w(32, 32, 3, 3), "g": _units(32), "o": np.zeros(32, np.float32), "v": np.ones(32, np.float32)},
        {"norm"}, 1, image=True,
    ),
}  # fmt: skip
FINE = {
    "columns of one size": Net([LAST], {"b": _w(128, 4), "c": _w(4, 1)[:, 0]}, set()),
    "small columns that a sigmoid reads": Net(
        [node("Gemm", ["r", "b", "c"], ["z"], name="last"), node("Sigmoid", ["z"], ["y"], name="end")],
        {"b": _w(128, 4) * UNITS, "c": np.zeros(4, np.float32)}, set(),
    ),
    "channels that are all but dead": Net(
        [node("MatMul", ["r", "b"], ["z"], name="middle"), node("MatMul", ["z", "d"], ["y"], name="last")],
        {"b": _w(128, 64) * np.where(np.arange(64) % 4, 1, 1e-7).astype(np.float32), "d": _w(64, 8)}, set(),
    ),
    "a column of rounding noise": Net(
        [node("MatMul", ["r", "b"], ["y"], name="last")],
        {"b": np.concatenate([_w(128, 4), np.zeros((128, 1), np.float32)], axis=1)}, set(),
    ),
}  # fmt: skip


def _cast(make_model: Make, folder: Path, net: Net) -> tuple[dict[str, str], Path, Path, CastResult]:
    """Return the nodes that stay in FP32 for their columns, the model, its cast and what was said of it."""
    first = (
        [node("Conv", ["x", "a"], ["h"], name="first", pads=[1] * 4), node("Relu", ["h"], ["r"], name="relu")]
        if net.image
        else [node("MatMul", ["x", "a"], ["h"], name="first"), node("Relu", ["h"], ["r"], name="relu")]
    )
    shape = (1, 3, 16, 16) if net.image else (4, 64)
    path = make_model(
        [*first, *net.nodes],
        inputs={"x": (F, shape)},
        outputs={"y": (F, None)},
        weights={"a": _w(32, 3, 3, 3) if net.image else _w(64, 128), **net.weights},
    )
    facts = facts_of(onnx.load(path), path).facts
    found = find_out_of_range(
        RangeJob(model=str(path), feed=Feed(facts=facts), run="opt", shapes={"x": shape}, small=False, memory_bytes=0)
    )
    output = folder / "cast"
    output.mkdir()
    policy = PrecisionPolicy(default=Precision.FP16)
    result = cast_model(CastJob(model=str(path), output=str(output), policy=policy, keep=found))
    return found, path, output / result.files[0], result


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_small_columns_keep_their_digits(make_model: Make, tmp_path: Path, net: Net) -> None:
    found, path, cast, result = _cast(make_model, tmp_path, net)
    assert found.keys() == net.small - {"rows"}
    assert result.kept.keys() >= net.small
    assert result.kept.keys().isdisjoint({"first", "relu", "before"})
    feed = {"x": np.random.default_rng(0).random((1, 3, 16, 16) if net.image else (4, 64), dtype=np.float32)}
    want, have = np.asarray(ort.InferenceSession(path).run(None, feed)[0]), run_emulated(cast, feed)
    others = tuple(axis for axis in range(want.ndim) if axis != net.axis % want.ndim)
    assert (np.abs(have - want).max(axis=others) < 4e-3 * np.abs(want).max(axis=others)).all()


@pytest.mark.parametrize("net", FINE.values(), ids=FINE)
def test_columns_that_matter_to_no_answer_stay_in_fp16(make_model: Make, tmp_path: Path, net: Net) -> None:
    assert _cast(make_model, tmp_path, net)[0] == {}


def test_a_line_says_which_columns_and_how_small(make_model: Make, tmp_path: Path) -> None:
    _, _, _, result = _cast(make_model, tmp_path, NETS["a matrix"])
    [line] = [line for line in result.warnings if line.startswith("last stays in FP32")]
    assert "columns of its results are small, at most " in line
    assert line.endswith("(axis 1, index 1, 2), and FP16 has few digits for them")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "shape"), [("cls", (3, 3, 48, 192)), ("rec", (2, 3, 48, 320))])
def test_no_column_of_a_real_model_stays_in_fp32(ocr_models: Path, model: str, shape: tuple[int, ...]) -> None:
    path = ocr_models / f"{model}.onnx"
    feed = Feed(facts=facts_of(onnx.load(path), path).facts)
    job = RangeJob(model=str(path), feed=feed, run="opt", shapes={"x": shape}, small=False, memory_bytes=0)
    assert find_out_of_range(job) == {}


def test_values_without_dimensions_are_looked_at_too(make_model: Make, tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", ["r"], ["mean"], name="mean", keepdims=0),
        node("Mul", ["mean", "k"], ["q"], name="scale"),
        node("MatMul", ["r", "b"], ["z"], name="last"),
        node("Mul", ["z", "q"], ["y"], name="product"),
    ]
    _, _, _, result = _cast(
        make_model, tmp_path, Net(nodes, {"b": _w(128, 4) * UNITS, "k": np.array(2, np.float32)}, {"last"})
    )
    assert any(line.startswith("last stays in FP32") for line in result.warnings)
