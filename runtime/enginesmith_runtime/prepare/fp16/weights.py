"""Converts weights one at a time: they are read in place, converted in pieces and written next to the new model.

External weights stay external. Weights inside the ONNX file stay inside, which ONNX allows up to 2 GiB in total.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from enginesmith_runtime.fetch.external_data import tensor_bytes
from enginesmith_runtime.onnx_graphs.graph import all_tensors, external_location
from enginesmith_runtime.onnx_graphs.narrow import Narrow
from enginesmith_runtime.prepare.fp16.cast_rules import CastRules

__all__ = ["WeightWriter", "nodes_beyond_range"]

_PIECE: Final = 1 << 22  # values: 16 MiB of FP32
_ALIGNMENT: Final = 4096  # so that runtimes can map the file
_MOST_LOST: Final = 4  # roundings, relative to the weights; ordinary ones lose half a rounding
_MOST_LOST_ALONE: Final = 0.05  # for a bias or a scale

_Floats = npt.NDArray[np.float32]


class WeightWriter:
    """Writes the weights of one new model.

    Args:
        source: Folder of the old model's files.
        output: Folder of the new files.
    """

    def __init__(self, source: Path, output: Path) -> None:
        self._source = source
        self._output = output
        self._file: IO[bytes] | None = None
        self._name = ""

    def to_half(self, tensor: TensorProto, name: str, narrow: Narrow) -> None:
        """Convert an FP32 weight to a 16-bit format in place, under a new name. All values must be in its range."""
        values = _values(tensor, self._source)
        pieces = (piece.astype(narrow.numpy).tobytes() for piece in _pieces(values))
        outside = external_location(tensor) is not None
        tensor.name = name
        tensor.data_type = narrow.dtype
        if outside:
            self._write(tensor, pieces)
        else:
            data = b"".join(pieces)
            del tensor.float_data[:]
            tensor.raw_data = data

    def finish(self, model: onnx.ModelProto, name: str) -> tuple[str, ...]:
        """Copy the unchanged weights and write the model. Return the names of the files, the model first."""
        for tensor in all_tensors(model):
            if external_location(tensor) is not None and not self._is_new(tensor):
                self._write(tensor, _raw_pieces(tensor, self._source))
        (self._output / name).write_bytes(model.SerializeToString())
        if self._file is None:
            return (name,)
        self._file.close()
        return (name, self._name)

    def _is_new(self, tensor: TensorProto) -> bool:
        return any(entry.key == "location" and entry.value == self._name for entry in tensor.external_data)

    def _free_name(self) -> str:
        """Return a name that no weights file of the old model has, since the name marks new weights."""
        number = 0
        while (self._source / (name := f"prepared-weights{number or ''}.bin")).exists():
            number += 1
        return name

    def _write(self, tensor: TensorProto, pieces: Iterator[bytes]) -> None:
        if self._file is None:
            self._name = self._free_name()
            self._file = (self._output / self._name).open("wb")
        offset = -(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT
        self._file.seek(offset)
        length = sum(self._file.write(piece) for piece in pieces)
        del tensor.external_data[:]
        for key, value in (("location", self._name), ("offset", str(offset)), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value


def nodes_beyond_range(graph: onnx.GraphProto, rules: CastRules, kept: frozenset[str], folder: Path) -> tuple[str, ...]:
    """Return the nodes outside `kept` with a weight that does not fit the format, in the graph's order."""
    weights: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
    heavy: dict[str, bool] = {}
    found: list[str] = []
    for node in graph.node:
        if node.name in kept or not rules.is_convertible(node):
            continue
        names = [node.input[index] for index in rules.half_inputs(node) if node.input[index] in weights]
        for name in names:
            if name not in heavy:
                heavy[name] = _is_beyond_range(_values(weights[name], folder), len(weights[name].dims), rules.narrow)
        if any(heavy[name] for name in names):
            found.append(node.name)
    return tuple(found)


def _is_beyond_range(values: _Floats, rank: int, narrow: Narrow) -> bool:
    """Whether a finite value would become infinite, or most values would lose digits. Infinities do not count."""
    most = _MOST_LOST * narrow.unit if rank > 1 else _MOST_LOST_ALONE
    squares = errors = 0.0
    for piece in _pieces(values):
        finite = piece[np.isfinite(piece)].astype(np.float64)
        if float(np.max(np.abs(finite), initial=0.0)) > narrow.largest:
            return True
        squares += float(np.sum(finite**2))
        errors += float(np.sum((finite.astype(narrow.numpy).astype(np.float64) - finite) ** 2))
    return errors > most**2 * squares


def _values(tensor: TensorProto, folder: Path) -> _Floats:
    """Return an FP32 weight as one flat array, which is mapped if it is in a separate file."""
    if external_location(tensor) is None:
        return np.asarray(numpy_helper.to_array(tensor), dtype=np.float32).reshape(-1)
    info = ExternalDataInfo(tensor)
    count = int(np.prod(tensor.dims, dtype=np.int64))
    if count == 0:
        return np.zeros(0, dtype=np.float32)
    return np.memmap(folder / info.location, dtype="<f4", mode="r", offset=info.offset or 0, shape=(count,))


def _pieces(values: _Floats) -> Iterator[_Floats]:
    for start in range(0, values.size, _PIECE):
        yield np.asarray(values[start : start + _PIECE])


def _raw_pieces(tensor: TensorProto, folder: Path) -> Iterator[bytes]:
    info = ExternalDataInfo(tensor)
    # The length is optional, and the following data in the file may be another tensor.
    left = info.length if info.length is not None else tensor_bytes(tensor)
    with (folder / info.location).open("rb") as file:
        file.seek(info.offset or 0)
        while left > 0 and (piece := file.read(min(left, _PIECE * 4))):
            left -= len(piece)
            yield piece
