"""Inputs of the reference runs. They are the same for the same model, profile and point on every machine.

Values are random by default, because zeros hide faults, and inside the range that the model supports, because a token
id outside an embedding's table tests nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from enginesmith_contract.errors import SpecError
from enginesmith_contract.profiles import Profile
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.jobs import Feed, Shapes

__all__ = ["FLOATS", "Array", "as_floats", "check_values", "fill_inputs", "local_values", "read_values", "typed_values"]

Array = npt.NDArray[np.generic]

FLOATS: Final = frozenset({DType.FP16, DType.FP32, DType.FP64, DType.BF16})
_UNSIGNED_BYTE_MAX: Final = 255
_WORDS: Final = (b"a", b"engine", b"smith", b"")


def fill_inputs(feed: Feed, shapes: Shapes, seed: str) -> dict[str, Array]:
    """Return one array for each input of the model.

    Args:
        feed: The inputs, and the requirements of the user and the model for their values.
        shapes: Shapes by input name.
        seed: Text that identifies the filling. The same text gives the same values.

    Returns:
        Arrays with the dtypes of the inputs. BYTES are object arrays of `str`, as ONNX Runtime needs them, and BF16 are
        raw uint16 bits.
    """
    return {
        spec.name: np.array(feed.given[spec.name], spec.dtype.numpy).reshape(shapes[spec.name])
        if spec.name in feed.given
        else _fill(spec, tuple(shapes[spec.name]), feed.values.get(spec.name), feed.index_bounds, seed)
        for spec in feed.facts.inputs
    }


def as_floats(array: Array, dtype: DType) -> npt.NDArray[np.float64]:
    """Return the numbers of an array as float64. BF16 is passed as its raw uint16 bits."""
    if dtype is DType.BF16:
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float64)


def read_values(name: str, path: Path) -> Array:
    """Return an input's array from an .npz file.

    Raises:
        enginesmith_contract.errors.SpecError: `InputsUnreadable` or `InputNotInFile`.
    """
    return _read_npz(f"verification.inputs.{name}", path, name)


def local_values(
    values: Mapping[str, InputValues], base: Path | None, fetch: Callable[[str, str], Path]
) -> dict[str, InputValues]:
    """Return the values with absolute paths of all .npz files.

    Args:
        values: Values by input name.
        base: Base folder of relative paths, which is the folder of the user's document; None for the current folder.
        fetch: Function that copies the file at a URI for an input to this machine and returns its path.

    Raises:
        enginesmith_contract.errors.SpecError: `InputsNotFound`.
        enginesmith_contract.errors.SourceError: A remote file cannot be fetched.
    """
    return {name: _local(name, value, base or Path.cwd(), fetch) for name, value in values.items()}


def check_values(feed: Feed, profiles: Iterable[Profile]) -> None:
    """Check the user's input values against the model and its profiles.

    Raises:
        enginesmith_contract.errors.SpecError: `UnknownInput`, `InputValuesAmbiguous`, `InputOutOfRange` (a random id
            would leave the table that it indexes), `InputNotInFile` or `InputDoesNotFit` (an array's dtype or shape).
    """
    known = {spec.name: spec for spec in feed.facts.inputs}
    ranges = [profile.inputs for profile in profiles]
    for name, values in feed.values.items():
        where = f"verification.inputs.{name}"
        if name not in known:
            raise _wrong(where, "the model has no such input", f"it has {', '.join(known)}", "UnknownInput")
        if any(inputs[name].values is not None for inputs in ranges):
            raise _wrong(where, "the input's values are given twice", "its profile has values", "InputValuesAmbiguous")
        given = [field for field in ("range", "constant", "npz") if getattr(values, field) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "nothing"
            raise _wrong(where, "one of range, constant and npz is needed", f"found {found}", "InputValuesAmbiguous")
        _check_bound(where, values, feed.index_bounds.get(name))
        if values.npz is not None:
            array = _read_npz(where, Path(values.npz), name)
            _check_array(where, array, known[name], [inputs[name].contains(array.shape) for inputs in ranges])


def _fill(
    spec: TensorSpec, shape: tuple[int, ...], values: InputValues | None, bounds: Mapping[str, int], seed: str
) -> Array:
    if values is not None and values.npz is not None:
        array = _read_npz(f"verification.inputs.{spec.name}", Path(values.npz), spec.name)
        return _tile(array, shape).astype(spec.dtype.numpy)
    if values is not None and values.constant is not None:
        return typed_values(np.full(shape, values.constant), spec.dtype)
    random = np.random.default_rng(np.frombuffer(sha256(f"{spec.name}\n{seed}".encode()).digest(), dtype=np.uint32))
    if spec.dtype is DType.BYTES:
        words = np.array([word.decode() for word in _WORDS], dtype=object)
        return np.asarray(words[random.integers(0, len(words), size=shape)], dtype=object)
    low, high = _range(spec, values, bounds.get(spec.name))
    if spec.dtype in FLOATS:
        return typed_values(
            random.random(shape, dtype=np.float32) * np.float32(high - low) + np.float32(low), spec.dtype
        )
    return typed_values(random.integers(int(low), int(high), size=shape, endpoint=True), spec.dtype)


def _range(spec: TensorSpec, values: InputValues | None, bound: int | None) -> tuple[float, float]:
    """Return the smallest and the largest value, both included for integers."""
    if values is not None and values.range is not None:
        return values.range
    if bound is not None:
        return 0, max(bound - 1, 0)
    if spec.dtype is DType.UINT8:
        return 0, _UNSIGNED_BYTE_MAX  # image bytes
    return 0, 1


def typed_values(array: Array, dtype: DType) -> Array:
    """Return values in a dtype, BF16 as its raw bits."""
    if dtype is DType.BF16:
        # The upper half of the bits of a float32 is a bfloat16.
        return np.asarray((array.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16))
    return np.asarray(array.astype(dtype.numpy))


def _tile(array: Array, shape: tuple[int, ...]) -> Array:
    """Crop or repeat along every axis, so that an image stays an image at another point's shape."""
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size), axis=axis, mode="wrap")
    return np.asarray(array, order="C")


def _local(name: str, values: InputValues, base: Path, fetch: Callable[[str, str], Path]) -> InputValues:
    if values.npz is None:
        return values
    where = f"verification.inputs.{name}"
    parts = urlsplit(values.npz)
    if parts.scheme not in {"", "file"}:
        return InputValues(npz=str(fetch(name, values.npz)))
    path = base / unquote(parts.path) if parts.scheme else base / values.npz
    if not path.is_file():
        raise _wrong(where, "the file of input values does not exist", values.npz, "InputsNotFound")
    return InputValues(npz=str(path))


def _read_npz(where: str, path: Path, name: str) -> Array:
    try:
        with np.load(path, allow_pickle=False) as file:
            if name in file:
                return np.asarray(file[name])
            found = f"{path.name} contains {', '.join(file.files) or 'nothing'}"
    except (OSError, ValueError, AttributeError) as error:
        raise _wrong(where, "not a readable .npz file", f"{path.name}: {error}", "InputsUnreadable") from error
    raise _wrong(where, "the .npz file has no array of this input's name", found, "InputNotInFile")


def _check_bound(where: str, values: InputValues, bound: int | None) -> None:
    if bound is None:
        return
    asked = values.range or ((values.constant, values.constant) if values.constant is not None else None)
    if asked is not None and not (-bound <= asked[0] and asked[1] < bound):
        why = f"it indexes a table of {bound} rows, and values go from {asked[0]:g} to {asked[1]:g}"
        raise _wrong(where, "values leave the table that the input indexes", why, "InputOutOfRange")


def _check_array(where: str, array: Array, spec: TensorSpec, fits: list[bool]) -> None:
    if not np.can_cast(array.dtype, spec.dtype.numpy, casting="same_kind"):
        why = f"the array is {array.dtype}, the input {spec.dtype}"
        raise _wrong(where, "the array's dtype does not fit", why, "InputDoesNotFit")
    if not any(fits):
        raise _wrong(where, "the array's shape fits no profile", f"it is {list(array.shape)}", "InputDoesNotFit")


def _wrong(where: str, what: str, why: str, reason: str) -> SpecError:
    return SpecError(what, where=where, why=why, remedy="correct verification.inputs", reason=reason)
