"""Reads arrays in files: their headers, and their rows one at a time."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

import numpy as np
from numpy.lib import format as npy
from typing_extensions import override

from enginesmith_contract.errors import SpecError
from enginesmith_contract.profiles import ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.prepare.quantize.sample_files import DataFiles, seekable, unreadable
from enginesmith_runtime.prepare.runs.inputs import Array

__all__ = ["ArraySource", "NpyStream", "RawStream", "open_npz", "open_raw"]

# The rows of an array in column order are not contiguous, so it is read as a whole.
_COLUMN_ORDER_BYTES: Final = 256 << 20
_SKIPPED_BYTES: Final = 1 << 20


class ArraySource(Protocol):
    """One array that is read from start to end.

    Attributes:
        where: Name of the file, for messages.
        shape: Shape of the whole array.
        dtype: Datatype of its elements.
    """

    where: str
    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"

    def read(self, rows: int | None) -> Array:
        """Return the next `rows` rows, or the whole array."""
        ...

    def skip(self, rows: int) -> None:
        """Skip the next `rows` rows."""
        ...


class RawStream:
    """Elements in row-major order without a header."""

    def __init__(self, stream: IO[bytes], where: str, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> None:
        self._stream = stream
        self.where = where
        self.shape = shape
        self.dtype = dtype

    def read(self, rows: int | None) -> Array:
        """Return the next `rows` rows, or the whole array; see `ArraySource`."""
        shape = self.shape if rows is None else (rows, *self.shape[1:])
        array = np.empty(shape, self.dtype)
        buffer = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
        done = 0
        with unreadable(self.where):
            while done < len(buffer):
                part = self._stream.read(min(len(buffer) - done, _SKIPPED_BYTES))
                if not part:
                    raise EOFError(f"it is cut off: {array.nbytes - done} bytes are missing")
                buffer[done : done + len(part)] = np.frombuffer(part, np.uint8)
                done += len(part)
        return array

    def skip(self, rows: int) -> None:
        """Skip the next `rows` rows."""
        size = rows * self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        with unreadable(self.where):
            self._stream.seek(size, 1)


class NpyStream(RawStream):
    """An array of an .npy file."""

    def __init__(self, stream: IO[bytes], where: str) -> None:
        """Read the header.

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationDataUnreadable`.
        """
        try:
            with unreadable(where):
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, columns, dtype = read(stream)
        except ValueError as error:
            raise _refused(where, str(error)) from error
        super().__init__(stream, where, shape, dtype)
        if dtype.hasobject:
            raise _refused(where, "it contains Python objects")
        self._whole: Array | None = None
        if columns:
            self._load_columns()

    @override
    def read(self, rows: int | None) -> Array:
        """Return the next `rows` rows, or the whole array; see `ArraySource`."""
        if self._whole is None:
            return super().read(rows)
        if rows is None:
            return self._whole
        taken, self._whole = self._whole[:rows], self._whole[rows:]
        return np.ascontiguousarray(taken)

    @override
    def skip(self, rows: int) -> None:
        """Skip the next `rows` rows."""
        if self._whole is None:
            super().skip(rows)
        else:
            self._whole = self._whole[rows:]

    def _load_columns(self) -> None:
        size = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        if size > _COLUMN_ORDER_BYTES:
            raise _refused(self.where, f"its {size} bytes are in column order; save numpy.ascontiguousarray of it")
        shape = self.shape
        self.shape = shape[::-1]
        self._whole = super().read(None).T
        self.shape = shape


@contextmanager
def open_npz(files: DataFiles, name: str, scratch: Path) -> Iterator[dict[str, ArraySource]]:
    """Open all arrays of an .npz file, by name.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataUnreadable`.
    """
    with ExitStack() as stack:
        with unreadable(name):
            stream = stack.enter_context(seekable(files, name, scratch))
            archive = stack.enter_context(zipfile.ZipFile(stream))
            members = [member for member in archive.namelist() if member.endswith(".npy")]
            opened = {member.removesuffix(".npy"): stack.enter_context(archive.open(member)) for member in members}
        yield {key: NpyStream(each, f"{name}, array {key}") for key, each in opened.items()}


def _refused(where: str, why: str) -> SpecError:
    return SpecError(
        "the calibration data cannot be read",
        where=where,
        why=why,
        remedy="save arrays of numbers or text with numpy.save or numpy.savez",
        reason="CalibrationDataUnreadable",
    )


def open_raw(stream: IO[bytes], where: str, spec: TensorSpec, ranges: Sequence[ShapeRange | None]) -> ArraySource:
    """Open a raw tensor. Its shape follows from its size, so all dimensions except the first must be fixed.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataUnreadable`.
    """
    with unreadable(where):
        size = stream.seek(0, 2)
        stream.seek(0)
    inner = {_fixed(spec.shape[1:], each) for each in ranges}
    shapes = [shape for shape in inner if shape is not None]
    if len(shapes) != 1 or not spec.shape or spec.dtype is DType.BYTES:
        raise _refused(where, f"a raw tensor has no shape, and profiles leave dimensions of input {spec.name} open")
    row_bytes = spec.dtype.numpy.itemsize * int(np.prod(shapes[0], dtype=np.int64))
    if not row_bytes or not size or size % row_bytes:
        raise _refused(
            where, f"its {size} bytes are not a multiple of the {row_bytes} bytes of a row of input {spec.name}"
        )
    return RawStream(stream, where, (size // row_bytes, *shapes[0]), spec.dtype.numpy)


def _fixed(sizes: tuple[int, ...], given: ShapeRange | None) -> tuple[int, ...] | None:
    """Return the sizes of the inner dimensions, or None if the profile leaves one open."""
    low, high = (given.min[1:], given.max[1:]) if given is not None else (sizes, sizes)
    return low if low == high and min(low, default=0) >= 0 else None
