"""Files for `infer`: what is converted is said, and what the input cannot hold is refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from enginesmith_cli.infer_inputs import InputError, Inputs, arrays_from_words
from enginesmith_cli.protocol_client import TensorDescription
from enginesmith_contract.tensors import DType


def _read(folder: Path, values: np.ndarray, dtype: DType) -> Inputs:
    np.save(folder / "x.npy", values)
    tensor = TensorDescription(name="x", dtype=dtype, shape=values.shape, ranges={})
    return arrays_from_words([f"x={folder / 'x.npy'}"], {}, [tensor])


@pytest.mark.parametrize(
    ("values", "dtype", "want"),
    [
        (np.array([1.5, 2.0]), DType.FP32, {"x": "float64"}),
        (np.array([1, 2]), DType.FP32, {"x": "int64"}),
        (np.array([1, 2]), DType.INT8, {"x": "int64"}),
        (np.array([1, 2]), DType.BYTES, {"x": "int64"}),
        (np.array([1.5], np.float32), DType.FP32, {}),
        (np.array(["a"]), DType.BYTES, {}),
        (np.array([np.inf, np.nan]), DType.FP16, {"x": "float64"}),
    ],
)
def test_a_conversion_is_said(tmp_path: Path, values: np.ndarray, dtype: DType, want: dict[str, str]) -> None:
    assert _read(tmp_path, values, dtype).converted_from == want


@pytest.mark.parametrize(
    ("values", "dtype", "want_fragments"),
    [
        (np.array([[1, 2], [300, 4]]), DType.INT8, ["input x[1, 0]", "300", "INT8"]),
        (np.array([-129]), DType.INT8, ["input x[0]", "-129", "INT8"]),
        (np.array([70000.0], np.float32), DType.FP16, ["input x[0]", "70000", "FP16"]),
        (np.array([256], np.uint16), DType.UINT8, ["input x[0]", "256", "UINT8"]),
        (np.array([1, 16777217]), DType.FP32, ["input x[1]", "16777217", "FP32"]),
        (np.array([[2049]], np.int16), DType.FP16, ["input x[0, 0]", "2049", "FP16"]),
        (np.array([-70000]), DType.FP16, ["input x[0]", "-70000", "FP16"]),
        (np.array([2**24 + 1], np.uint32), DType.FP32, ["input x[0]", "16777217", "FP32"]),
        (np.array([2**53 + 1]), DType.FP64, ["input x[0]", "9007199254740993", "FP64"]),
        (np.array([2**63 - 1]), DType.FP32, ["input x[0]", "9223372036854775807", "FP32"]),
        (np.array([2**64 - 1], np.uint64), DType.FP64, ["input x[0]", "18446744073709551615", "FP64"]),
    ],
)
def test_a_value_that_the_input_cannot_hold_is_refused(
    tmp_path: Path, values: np.ndarray, dtype: DType, want_fragments: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        _read(tmp_path, values, dtype)
    assert refused.value.reason == "ValueOutOfRange"
    for fragment in want_fragments:
        assert fragment in str(refused.value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([16777216, -(2**63), 2**62, 0]), DType.FP32),
        (np.array([2048, -4096]), DType.FP16),
        (np.array([2**63], np.uint64), DType.FP32),
        (np.array([0.1]), DType.FP32),
    ],
)
def test_a_value_that_the_input_holds_is_sent(tmp_path: Path, values: np.ndarray, dtype: DType) -> None:
    have = _read(tmp_path, values, dtype).arrays["x"]
    assert have.tolist() == pytest.approx(values.tolist(), rel=1e-7)


@pytest.mark.parametrize("suffix", ["npy", "npz", "png"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path, suffix: str) -> None:
    pipe = tmp_path / f"x.{suffix}"
    os.mkfifo(pipe)
    tensor = TensorDescription(name="x", dtype=DType.FP32, shape=(1,), ranges={})
    for word in (f"x={pipe}", str(pipe)):
        with pytest.raises(InputError, match="a named pipe"):
            arrays_from_words([word], {}, [tensor])
