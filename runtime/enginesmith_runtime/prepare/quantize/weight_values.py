"""Reads values of weights that may be external. Only one weight and one copy of it are in memory at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

__all__ = ["along", "in_steps", "inside", "largest_values", "weight_values"]

_Floats = npt.NDArray[np.float32]


def weight_values(weight: onnx.TensorProto, folder: Path) -> npt.NDArray[Any]:
    """Return the values of a weight. Values in a file of `folder` are mapped."""
    if not uses_external_data(weight) or 0 in weight.dims:
        return np.asarray(numpy_helper.to_array(weight))
    info = ExternalDataInfo(weight)
    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    return np.memmap(folder / info.location, dtype=dtype, mode="r", offset=info.offset or 0, shape=tuple(weight.dims))


def inside(weight: onnx.TensorProto, folder: Path) -> onnx.TensorProto:
    """Return a copy of a weight that contains its values."""
    copy = onnx.TensorProto()
    copy.CopyFrom(weight)
    if uses_external_data(copy):
        load_external_data_for_tensor(copy, str(folder))
        copy.ClearField("external_data")
        copy.ClearField("data_location")
    return copy


def largest_values(values: npt.NDArray[Any], axis: int | None) -> _Floats:
    """Return the largest absolute value of each channel along `axis`, or of all values."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    highest, lowest = values.max(axis=others, initial=0), values.min(axis=others, initial=0)
    return np.asarray(np.maximum(highest.astype(np.float32), -lowest.astype(np.float32)))


def along(scales: _Floats, axis: int | None, rank: int) -> _Floats:
    """Return one number for each channel, or one for all, in a shape that broadcasts to a weight."""
    return scales.reshape([-1 if index == axis else 1 for index in range(rank)])


def in_steps(values: npt.NDArray[Any], scales: _Floats, axis: int | None) -> _Floats:
    """Return values divided by the scale of their channel, or by one scale for all."""
    return np.asarray(np.divide(values, along(scales, axis, values.ndim), dtype=np.float32))
