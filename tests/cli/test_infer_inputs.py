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


@pytest.mark.parametrize("suffix", ["npy", "npz", "png"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path, suffix: str) -> None:
    pipe = tmp_path / f"x.{suffix}"
    os.mkfifo(pipe)
    tensor = TensorDescription(name="x", dtype=DType.FP32, shape=(1,), ranges={})
    for word in (f"x={pipe}", str(pipe)):
        with pytest.raises(InputError, match="a named pipe"):
            arrays_from_words([word], {}, [tensor])
