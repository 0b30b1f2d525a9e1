"""FP16 holds for inputs of any usual size: nodes stay in FP32 for it, or a line says for which values it does not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Make, scalar
from tests.prepare.test_fp16_features import NETS

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.onnx_graphs.emulation import emulation_of
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.fp16.sweep import sweep
from enginesmith_runtime.prepare.fp16.sweep_inputs import generated_inputs, input_limits, open_inputs
from enginesmith_runtime.prepare.jobs import CastJob, Feed, Sweep, SweepJob
from enginesmith_runtime.prepare.model_file.facts import facts_of
from enginesmith_runtime.prepare.model_file.index_bounds import find_index_bounds

F = TensorProto.FLOAT
node = helper.make_node
Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(3)


class Model(NamedTuple):
    """Nodes from the inputs to `f`, which two more layers read; `feed` is what a user sends."""

    nodes: list[onnx.NodeProto]
    feed: Arrays
    weights: Arrays = MappingProxyType({})
    width: int = 64


def w(*shape: int, scale: float = 1.0, mean: float = 0.0, random: np.random.Generator = RANDOM) -> Array:
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return np.asarray(random.normal(mean, scale / np.sqrt(fan), shape), np.float32)


def _balanced(*shape: int) -> Array:
    weights = w(*shape)
    axes = tuple(range(1, len(shape))) if len(shape) > 2 else (0,)
    return np.asarray(weights - weights.mean(axes, keepdims=True), np.float32)


def near(middle: float, width: float, *shape: int) -> Array:
    return np.asarray(middle + RANDOM.uniform(-width, width, shape), np.float32)


def mm(source: str, weight: str, target: str) -> onnx.NodeProto:
    return node("MatMul", [source, weight], [target], name=target)


def conv(source: str, weight: str, target: str, pad: int, **attributes: Any) -> onnx.NodeProto:
    return node("Conv", [source, weight], [target], name=target, pads=[pad] * 4, **attributes)


def _dft(size: int) -> Array:
    turns = 2 * np.pi * np.outer(np.arange(size // 2), np.arange(size)) / size
    return np.concatenate([np.cos(turns), np.sin(turns)])[:, None].astype(np.float32)


def _pairs(rows: int, width: int, apart: float, scale: float) -> Array:
    table = RANDOM.normal(0, scale, (rows, width))
    table[1::2] = table[::2] + RANDOM.normal(0, apart, (rows // 2, width))
    return table.astype(np.float32)


EVEN = 2 * RANDOM.integers(0, 900, 4)
ROWS = [node("Gather", ["t", "i"], ["p"], name="p"), node("Gather", ["t", "j"], ["q"], name="q")]
GATES = [
    each
    for number in range(3)
    for each in (
        conv(f"g{number}", f"w{number}", f"h{number}", 1),
        node("Clip", [f"h{number}", "zero", "six"], [f"c{number}"], name=f"c{number}"),
        node("Mul", [f"g{number}", f"c{number}"], [f"g{number + 1}"], name=f"g{number + 1}"),
    )
]
POOL = [node("GlobalMaxPool", ["n"], ["o"], name="o"), node("Flatten", ["o"], ["f"], name="f")]
INSTANCE = node("InstanceNormalization", ["last", "ones", "zeros"], ["n"], name="n")
LAYER_NORM = node("LayerNormalization", ["last", "ones", "zeros"], ["f"], name="f")
NORM = {"ones": np.ones(64, np.float32), "zeros": np.zeros(64, np.float32)}
NORM16 = {"ones": np.ones(16, np.float32), "zeros": np.zeros(16, np.float32)}
IMAGE = np.asarray(255 * RANDOM.random((2, 3, 16, 16)), np.float32)

MODELS = {
    # A layer reads an input with an offset.
    "a matrix and a pressure": Model([mm("x", "w", "f")], {"x": near(1013, 1, 4, 128)}, {"w": _balanced(128, 64)}),
    "a recurrent layer and a temperature": Model(
        [
            node("GRU", ["x", "w", "r"], ["", "h"], name="gru", hidden_size=64),
            node("Squeeze", ["h", "first"], ["f"], name="f"),
        ],
        {"x": near(293, 0.5, 5, 4, 80)},
        {"w": _balanced(1, 192, 80), "r": w(1, 192, 64), "first": np.array([0])},
    ),
    "Einsum and a moved input": Model(
        [node("Transpose", ["x"], ["t"], name="t"), node("Einsum", ["t", "w"], ["f"], name="f", equation="in,io->no")],
        {"x": near(101.3, 0.1, 4, 128)}, {"w": _balanced(128, 64)},
    ),
    "a convolution and a picture of one colour": Model(
        [conv("x", "w", "last", 0), INSTANCE, *POOL], {"x": near(200, 0.5, 2, 3, 16, 16)},
        {"w": _balanced(16, 3, 3, 3), **NORM16}, 16,
    ),
    "a position next to features": Model(
        [node("Concat", ["x", "p"], ["c"], axis=1), mm("c", "w", "f")],
        {"x": near(0, 2, 4, 64), "p": np.array([[5], [70_000], [99_999], [33_333]], np.float32)},
        {"w": np.concatenate([w(64, 64), RANDOM.normal(0, 1e-5, (1, 64)).astype(np.float32)])},
    ),
    # Values leave the range.
    "box filters": Model(
        [conv("x", "w", "a", 1), conv("a", "box", "b", 3, group=16), conv("b", "box", "last", 3, group=16), INSTANCE,
         *POOL],
        {"x": IMAGE}, {"w": w(16, 3, 3, 3), "box": np.ones((16, 1, 7, 7), np.float32), **NORM16}, 16,
    ),
    "gates": Model(
        [conv("x", "w", "g0", 1), *GATES, conv("g3", "w3", "last", 1), INSTANCE, *POOL], {"x": IMAGE},
        {
            "w": w(16, 3, 3, 3, scale=1.4), **{f"w{one}": w(16, 16, 3, 3, scale=1.4) for one in range(4)},
            "zero": scalar(0), "six": scalar(6), **NORM16,
        }, 16,
    ),
    "large weights": Model(
        [mm("x", "w", "a"), mm("a", "v", "last"), LAYER_NORM], {"x": near(0, 6, 4, 64)},
        {"w": w(64, 256), "v": w(256, 64, scale=4e4), **NORM},
    ),
    "a sum of sensors": Model(
        [mm("x", "w", "a"), mm("a", "v", "last"), LAYER_NORM], {"x": near(850, 150, 4, 512)},
        {"w": w(512, 64, scale=3, mean=0.2), "v": w(64, 64), **NORM},
    ),
    "scores before they are scaled": Model(
        [
            *(mm("x", f"w{one}", one) for one in "qkv"), node("Transpose", ["k"], ["t"], perm=[1, 0]),
            mm("q", "t", "s"), node("Mul", ["s", "root"], ["m"], name="m"), node("Softmax", ["m"], ["p"], name="p"),
            mm("p", "v", "f"),
        ],
        {"x": near(0, 1000, 4, 64)}, {**{f"w{one}": w(64, 64) for one in "qkv"}, "root": scalar(0.125)},
    ),
    # Large constants that no training made.
    "a triangle of ones": Model(
        [mm("x", "w", "a"), mm("a", "sum", "b"), node("Tanh", ["b"], ["f"], name="f")],
        {"x": near(600, 400, 4, 64)},
        {"w": w(64, 260, mean=0.02), "sum": np.triu(np.ones((260, 260), np.float32))}, 260,
    ),
    "the mean taken away": Model(
        [mm("x", "w", "f")], {"x": near(980, 1, 4, 300)}, {"w": (np.eye(300) - 1 / 300).astype(np.float32)}, 300,
    ),
    "a Fourier transform": Model(
        [
            node("Conv", ["x", "w"], ["a"], name="a", strides=[128]), node("Mul", ["a", "a"], ["b"], name="b"),
            node("Add", ["b", "e"], ["c"], name="c"), node("Log", ["c"], ["d"], name="d"),
            node("ReduceMean", ["d"], ["f"], name="f", axes=[2], keepdims=0),
        ],
        {"x": (0.5 * np.sin(0.3927 * np.arange(1024)))[None, None].astype(np.float32)},
        {"w": _dft(260), "e": scalar(1e-10)}, 260,
    ),
    # Rows of tables.
    "a distance of places": Model(
        [*ROWS, node("Sub", ["p", "q"], ["d"], name="d"), node("Tanh", ["d"], ["f"], name="f")],
        {"i": EVEN, "j": EVEN + 1}, {"t": _pairs(2000, 64, 1, 5e4)},
    ),
    "a distance of small numbers": Model(
        [
            *ROWS, node("Neg", ["q"], ["o"], name="o"), node("Add", ["p", "o"], ["d"], name="d"),
            node("Mul", ["d", "k"], ["e"], name="e"), node("Tanh", ["e"], ["f"], name="f"),
        ],
        {"i": EVEN, "j": EVEN + 1}, {"t": _pairs(2000, 64, 1e-4, 1), "k": scalar(5000)},
    ),
    "a part of two rows": Model(
        [
            *ROWS, node("Slice", ["p", "from", "to", "one"], ["a"], name="a"),
            node("Slice", ["q", "from", "to", "one"], ["b"], name="b"), node("Sub", ["a", "b"], ["d"], name="d"),
            node("Sin", ["d"], ["e"], name="e"), node("Mul", ["e", "k"], ["g"], name="g"),
            node("Tanh", ["g"], ["f"], name="f"),
        ],
        {"i": EVEN, "j": EVEN + 1},
        {
            "t": _pairs(2000, 64, 1e-4, 1), "k": scalar(5000), "from": np.array([0]), "to": np.array([32]),
            "one": np.array([1]),
        }, 32,
    ),
    "two rows in one layer": Model(
        [*ROWS, node("Concat", ["p", "q"], ["c"], name="c", axis=1), mm("c", "w", "d"),
         node("Tanh", ["d"], ["f"], name="f")],
        {"i": EVEN, "j": EVEN + 1},
        {"t": _pairs(2000, 64, 1e-4, 1), "w": np.concatenate([TURN := w(64, 64, scale=2000), -TURN])},
    ),
    "a table with an offset": Model(
        [ROWS[0], mm("p", "w", "f")], {"i": EVEN}, {"t": near(20, 0.01, 2000, 64), "w": _balanced(64, 64)},
    ),
    "an age": Model(
        [ROWS[0], node("Sub", ["now", "p"], ["d"], name="d"), node("Tanh", ["d"], ["f"], name="f")],
        {"i": EVEN, "now": near(5, 1, 4, 64)}, {"t": _pairs(2000, 64, 1, 5)},
    ),
    # Weights that FP16 has few digits for.
    **{
        f"weights of {size:g}": Model(
            [mm("x", "w", "a"), node("Mul", ["a", "k"], ["b"], name="b"), node("Tanh", ["b"], ["f"], name="f")],
            {"x": near(0, 2, 4, 64)}, {"w": w(64, 64, scale=8 * size), "k": scalar(0.1 / size)},
        )
        for size in (2e-7, 2e-6)
    },
}  # fmt: skip


def write(make_model: Make, model: Model) -> Path:
    random = np.random.default_rng(7)
    last = [mm("f", "y1", "z"), node("Relu", ["z"], ["z2"], name="relu"), mm("z2", "y2", "y")]
    weights = {**model.weights, "y1": w(model.width, 80, random=random), "y2": w(80, 80, random=random)}
    inputs = {
        key: (helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)) for key, array in model.feed.items()
    }
    return make_model([*model.nodes, *last], inputs=inputs, outputs={"y": (F, None)}, weights=weights)


def sweep_cast(
    path: Path,
    folder: Path,
    values: Mapping[str, InputValues] | None = None,
    seconds: float = 600,
    precision: Precision = Precision.FP16,
) -> Any:
    """Cast a model and sweep it, as the preparation does; returns the file, what was kept, and the last sweep."""
    model = onnx.load(path)
    facts = facts_of(model, path).facts
    feed = Feed(facts=facts, values=values or {}, index_bounds=find_index_bounds(model.graph))
    tried: dict[str, str] = {}
    for attempt in range(5):
        output = folder / f"cast{attempt}"
        output.mkdir()
        policy = PrecisionPolicy(default=precision)
        result = cast_model(
            CastJob(
                model=str(path), output=str(output), policy=policy, tried=tried,
                open_inputs=open_inputs(feed, policy.default),
                limits=input_limits(feed), generated=generated_inputs(feed),
            )
        )  # fmt: skip
        job = SweepJob(
            model=str(path), cast=str(output / result.files[0]), precision=precision, feed=feed, run="0-min",
            shapes={spec.name: spec.shape for spec in facts.inputs}, kept=tuple(result.kept), expected=0.0,
            attempt=attempt, memory_bytes=1 << 30, seconds=seconds,
        )  # fmt: skip
        found: Sweep = sweep(job)
        new = {name: reason for name, reason in found.keep.items() if name not in result.kept}
        if not new:
            break
        tried |= new
    return output / result.files[0], result, found


def both(source: Path, cast: Path, feed: Arrays) -> tuple[Array, Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    emulation = emulation_of(cast)
    session = ort.InferenceSession(cast, options) if emulation is None else emulation.open(ort, cast, options)
    want = ort.InferenceSession(source).run(None, dict(feed))[0]
    return np.asarray(session.run(None, dict(feed))[0]), np.asarray(want)


@pytest.mark.parametrize("name", MODELS)
def test_the_cast_model_means_what_it_meant(make_model: Make, tmp_path: Path, name: str) -> None:
    path = write(make_model, MODELS[name])
    cast, _, _ = sweep_cast(path, tmp_path)
    have, want = both(path, cast, MODELS[name].feed)
    np.testing.assert_allclose(have, want, rtol=0, atol=5e-3 * float(np.max(np.abs(want))))


@pytest.mark.parametrize("name", NETS)
def test_ordinary_nets_still_compute_in_fp16(make_model: Make, tmp_path: Path, name: str) -> None:
    case, norms = NETS[name]
    inputs = {key: (F, list(array.shape)) for key, array in case.feed.items()}
    path = make_model(case.nodes, inputs=inputs, outputs={"y": (F, None)}, weights=case.weights)
    _, result, _ = sweep_cast(path, tmp_path)
    operators = {one.name or one.output[0]: one.op_type for one in case.nodes}
    kept = [name for name in result.kept if operators[name] not in norms]
    assert len(kept) <= 4
    assert operators[kept[0]] in {"Conv", "Gemm", "MatMul"}


def test_the_statistics_of_batch_normalization_say_what_is_usual(make_model: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    nodes = [
        conv("x", "w0", "a", 1), node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"], name="c"),
        *(node("Conv", [name, weight], [made], name=made)
          for name, weight, made in (("c", "w1", "d"), ("d", "w2", "e"), ("e", "w3", "y"))),
    ]  # fmt: skip
    weights = {
        "w0": w(16, 3, 3, 3, random=random),
        **{f"w{one}": w(16, 16, 1, 1, scale=12, random=random) for one in (1, 2, 3)},
        **dict.fromkeys("sv", np.ones(16, np.float32)), **dict.fromkeys("bm", np.zeros(16, np.float32)),
    }  # fmt: skip
    path = make_model(nodes, inputs={"x": (F, [1, 3, 8, 8])}, outputs={"y": (F, None)}, weights=weights)
    _, result, found = sweep_cast(path, tmp_path)
    assert set(result.kept) == {"a"}
    lines = [line for line in found.warnings if "BatchNormalization was trained with smaller values" in line]
    assert "x between 0 and 255" in " ".join(lines)


def test_a_given_range_is_all_that_is_tried(make_model: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    model = MODELS["large weights"]._replace(
        weights={"w": w(64, 256, random=random), "v": w(256, 64, scale=2e3, random=random), **NORM}
    )
    path = write(make_model, model)
    _, everything, _ = sweep_cast(path, tmp_path)
    inside = tmp_path / "inside"
    inside.mkdir()
    _, result, found = sweep_cast(path, inside, {"x": InputValues(range=(0.25, 1))})
    assert {"a", "last"} <= everything.kept.keys()
    assert set(result.kept) == {"f"}
    assert not found.warnings


def test_a_narrow_part_of_a_given_range_is_tried(make_model: Make, tmp_path: Path) -> None:
    model = MODELS["a matrix and a pressure"]
    path = write(make_model, model)
    cast, result, _ = sweep_cast(path, tmp_path, {"x": InputValues(range=(900, 1100))})
    have, want = both(path, cast, model.feed)
    np.testing.assert_allclose(have, want, rtol=0, atol=5e-3 * float(np.max(np.abs(want))))
    assert "with x between 1099.6 and 1100" in result.kept["f"]


def test_rare_values_keep_no_node_and_are_said(make_model: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    nodes = [mm("x", "w0", "a"), mm("a", "w1", "b"), mm("b", "w2", "y")]
    weights = {f"w{one}": w(80, 80, scale=1.5, random=random) for one in range(3)}
    path = make_model(nodes, inputs={"x": (F, [2, 80])}, outputs={"y": (F, None)}, weights=weights)
    _, result, found = sweep_cast(path, tmp_path)
    assert set(result.kept) == {"a"}
    assert [line for line in found.warnings if "x between 0 and 100,000; where requests hold such values" in line]


def test_what_was_not_tried_is_said(make_model: Make, tmp_path: Path) -> None:
    _, _, found = sweep_cast(write(make_model, MODELS["large weights"]), tmp_path, seconds=0)
    assert "FP16 was not tried with" in found.warnings[0]


@pytest.mark.slow
def test_the_preparation_says_which_values_keep_nodes_in_fp32(
    prepare_model: Callable[..., Preparation], make_model: Make
) -> None:
    random = np.random.default_rng(7)
    model = MODELS["large weights"]._replace(
        weights={"w": w(64, 256, random=random), "v": w(256, 64, scale=4e3, random=random), **NORM}
    )
    preparation = prepare_model(write(make_model, model), precision={"default": "fp16"})
    assert {"a", "last", "f"} <= preparation.kept.keys()
    assert "has NaN or infinity with x" in preparation.kept["last"]
    assert "Give the range of x in verification.inputs" in " ".join(preparation.warnings)
