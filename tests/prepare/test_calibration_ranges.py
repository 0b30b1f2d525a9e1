"""Histograms of the tensors of a model over calibration data, and the ranges that follow from them."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.calibration import Calibration, CalibrationMethod
from enginesmith_contract.errors import SpecError
from enginesmith_runtime.prepare.quantize.histograms import (
    BINS,
    Histogram,
    collect,
    read_histograms,
    write_histograms,
)
from enginesmith_runtime.prepare.quantize.ranges import choose_range, refuse_same_samples, refuse_unusable

MakeModel = Callable[..., Path]
Inputs = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture
def convolutions(make_model: MakeModel) -> Path:
    """Return a model of x [1, 2, 4, w] with the values `large`, `small` and `zero` of that size."""
    random = np.random.default_rng(1)
    weights = {
        "w": random.standard_normal((8, 2, 3, 3), dtype=np.float32),
        "big": random.standard_normal((8, 8, 3, 3), dtype=np.float32) * 100,
        "nil": np.zeros((8, 8, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["small"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["small"], ["active"]),
        helper.make_node("Conv", ["active", "big"], ["large"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["large", "nil"], ["zero"]),
    ]
    shape = [1, 8, 4, "width"]
    return make_model(
        nodes,
        inputs={"x": (TensorProto.FLOAT, [1, 2, 4, "width"])},
        outputs={"zero": (TensorProto.FLOAT, shape)},
        weights=weights,
    )


def samples(count: int = 24) -> Iterator[tuple[str, Inputs]]:
    random = np.random.default_rng(3)
    for number in range(count):
        array = random.standard_normal((1, 2, 4, 8 + number % 5), dtype=np.float32) * np.float32(1 + number % 3)
        yield f"s{number}", {"x": array}


def run(path: Path, names: list[str], inputs: Inputs) -> list[np.ndarray[Any, Any]]:
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "zero")
    return list(ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(names, inputs))


@pytest.fixture
def measure(make_model: MakeModel) -> Callable[..., Histogram]:
    """Return a maker of histograms: `measure(array, ...)`, one sample for each array."""
    path = make_model(
        [helper.make_node("Relu", ["x"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, ["n"])},
        outputs={"y": (TensorProto.FLOAT, ["n"])},
        name="one.onnx",
    )

    def run(*arrays: Any) -> Histogram:
        given = ((f"s{number}", {"x": np.asarray(array, np.float32)}) for number, array in enumerate(arrays))
        return collect(path, given, ["x"])["x"]

    return run


def calibration(method: CalibrationMethod = CalibrationMethod.MSE, percentile: float = 99.0) -> Calibration:
    return Calibration(source="x", method=method, percentile=percentile)


def quantised(values: np.ndarray[Any, Any], amax: float) -> np.ndarray[Any, Any]:
    step = amax / 127
    return np.asarray(np.clip(np.rint(values / step), -127, 127) * step)


NAMES = ["x", "active", "large", "small", "zero"]


def test_a_histogram_counts_every_value_of_every_sample(convolutions: Path) -> None:
    found = collect(convolutions, samples(), NAMES)
    assert list(found) == NAMES
    for name in NAMES[1:]:
        values = [run(convolutions, [name], inputs)[0] for _, inputs in samples()]
        flat = np.concatenate([value.reshape(-1) for value in values]).astype(np.float64)
        histogram = found[name]
        assert histogram.zeros == int((flat == 0).sum())
        assert int(histogram.counts.sum()) + histogram.zeros == flat.size
        assert histogram.amax == pytest.approx(np.abs(flat).max(), rel=1e-5)
        assert np.allclose(histogram.largest, [np.abs(value).max() for value in values], rtol=1e-5)
        if name != "zero":
            want = np.histogram(np.abs(flat[flat != 0]), BINS, (0, histogram.limit))[0]
            # The last bit of a sum moves a value to the next bin.
            assert np.abs(want - histogram.counts).sum() <= 0.001 * flat.size
            assert histogram.amax < histogram.limit <= 2 * histogram.amax


def test_groups_that_fit_the_memory_give_the_same_histograms(convolutions: Path) -> None:
    whole = write_histograms(collect(convolutions, samples(), NAMES))
    done: list[int] = []
    assert write_histograms(collect(convolutions, samples(), NAMES, memory_bytes=1, tick=done.append)) == whole
    assert write_histograms(collect(convolutions, samples(), NAMES, memory_bytes=3000)) == whole
    assert done == list(range(1, 25))


def test_the_order_of_the_samples_changes_no_count(measure: Callable[..., Histogram]) -> None:
    random = np.random.default_rng(5)
    arrays = [random.standard_normal(300) * 10.0**number for number in range(-6, 6)]
    forth, back = measure(*arrays, np.zeros(4)), measure(np.zeros(4), *reversed(arrays))
    assert np.array_equal(forth.counts, back.counts)
    assert (forth.limit, forth.zeros, forth.amax) == (back.limit, back.zeros, back.amax)
    assert (forth.widest_sample, back.widest_sample) == ("s11", "s1")


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1.0, 2.0, 1e20, 3e38])
def test_values_of_every_size_are_counted(measure: Callable[..., Histogram], scale: float) -> None:
    histogram = measure(np.array([1, -1, 0.5, 0]) * scale, [scale])
    assert int(histogram.counts.sum()) + histogram.zeros == 5
    assert histogram.amax == pytest.approx(scale, rel=0.1)
    for method in CalibrationMethod:
        assert 0 < choose_range(histogram, calibration(method)) <= histogram.amax


def test_histograms_are_read_as_they_were_written(convolutions: Path) -> None:
    found = collect(convolutions, samples(), NAMES)
    data = write_histograms(found)
    again = read_histograms(data)
    assert write_histograms(again) == data
    assert [choose_range(again[name], calibration()) for name in NAMES[:4]] == [
        choose_range(found[name], calibration()) for name in NAMES[:4]
    ]
    for broken in (b"", b"x", data[:-9]):
        with pytest.raises(ValueError, match="histograms"):
            read_histograms(broken)


def test_the_range_of_least_error_is_better_than_all_others(measure: Callable[..., Histogram]) -> None:
    random = np.random.default_rng(9)
    tails = random.standard_t(4, 50_000)
    for drawn in (random.standard_normal(50_000), random.laplace(size=50_000), tails, np.maximum(tails, 0)):
        values = drawn.astype(np.float32)
        amax = choose_range(measure(*np.split(values, 25)), calibration())
        error = float(((quantised(values, amax) - values) ** 2).mean())
        others = [float(((quantised(values, amax * by) - values) ** 2).mean()) for by in np.geomspace(0.3, 3, 60)]
        assert error <= 1.02 * min(others)
        assert error < ((quantised(values, float(np.abs(values).max())) - values) ** 2).mean()


def test_min_max_takes_the_largest_value_and_percentile_a_share_without_zeros(
    measure: Callable[..., Histogram],
) -> None:
    values = np.concatenate([np.zeros(900), np.linspace(0.001, 1, 1000), -np.linspace(0.001, 1, 1000)])
    histogram = measure(values)
    assert choose_range(histogram, calibration(CalibrationMethod.MIN_MAX)) == 1
    assert choose_range(histogram, calibration(CalibrationMethod.PERCENTILE)) == pytest.approx(0.99, abs=1e-3)
    assert choose_range(histogram, calibration(CalibrationMethod.PERCENTILE, 100.0)) == 1


ORDINARY = [np.array([-1.0, 0.5])] * 20


@pytest.mark.parametrize(
    ("arrays", "want_words"),
    [
        ([np.zeros(4)] * 20, "x: 0 in all 20 samples"),
        ([np.full(4, 2.5)] * 20, "x: the constant 2.5"),
        ([*ORDINARY, np.array([1.0, np.nan])], "x: NaN or infinity in sample s20"),
        ([*ORDINARY, np.array([1.0, -np.inf])], "x: NaN or infinity in sample s20"),
        ([*ORDINARY, np.array([-20.5])], "x: it reaches 20.5 in sample s20, more than 20 times 1,"),
        ([*[np.zeros(2)] * 30, *ORDINARY, np.array([25.0])], "x: it reaches 25 in sample s50"),
    ],
)
def test_data_without_a_usable_range_is_refused_with_tensor_and_sample(
    measure: Callable[..., Histogram], arrays: list[Any], want_words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        refuse_unusable({"x": measure(*arrays)})
    assert caught.value.reason == "CalibrationUnusable"
    assert want_words in str(caught.value)


def test_one_sample_many_times_is_refused(convolutions: Path) -> None:
    ((_, first),) = samples(1)
    tensors = ["x", "small"]
    copies = collect(convolutions, ((str(number), first) for number in range(20)), tensors)
    with pytest.raises(SpecError, match="all 20 samples are the same") as refused:
        refuse_same_samples(copies)
    assert refused.value.reason == "CalibrationUnusable"
    refuse_same_samples(collect(convolutions, [("a", first), *samples(2)], tensors))


def test_ordinary_data_is_not_refused(measure: Callable[..., Histogram], convolutions: Path) -> None:
    refuse_unusable({"x": measure(*ORDINARY, np.array([-19.0, 0.0]))})
    found = collect(convolutions, samples(), NAMES)
    with pytest.raises(SpecError, match="zero: 0 in all 24 samples"):
        refuse_unusable(found)
    refuse_unusable({name: found[name] for name in NAMES[:4]})


def test_a_sample_that_the_model_refuses_is_named(convolutions: Path) -> None:
    given = [*samples(3), ("bad.npy", {"x": np.zeros((1, 3, 4, 4), np.float32)})]
    with pytest.raises(SpecError, match=r"bad\.npy") as caught:
        collect(convolutions, given, NAMES)
    assert caught.value.reason == "SampleRefusedByModel"


def test_weights_in_files_of_their_own_are_used(convolutions: Path) -> None:
    want = write_histograms(collect(convolutions, samples(4), NAMES))
    onnx.save(onnx.load(convolutions), convolutions, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert write_histograms(collect(convolutions, samples(4), NAMES, memory_bytes=1)) == want


def test_lines_of_text_of_different_widths_are_counted_in_little_memory(ocr_models: Path) -> None:
    """PP-OCR cls on 40 samples, as a process of its own: 300 MB are far more than it takes."""
    program = """
import re, sys
from pathlib import Path
import numpy as np
import onnx
from enginesmith_runtime.prepare.quantize.histograms import collect
model = Path(sys.argv[1])
graph = onnx.load(model).graph
names = [name for node in graph.node if node.op_type in ("Conv", "MatMul") for name in node.input[:1]]
random = np.random.default_rng(1)
samples = ((str(n), {"x": random.random((1, 3, 48, 96 + n), np.float32) * 2 - 1}) for n in range(40))
found = collect(model, samples, list(dict.fromkeys(names)))
print(len(found), min(int(each.counts.sum()) for each in found.values()) > 0)
# Not ru_maxrss: that of a new process begins with what its parent had.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(ocr_models / "cls.onnx")], check=True, capture_output=True, text=True
    )
    count, positive, megabytes = run.stdout.split()
    assert (int(count) > 40, positive) == (True, "True")
    assert int(megabytes) < 300
