"""Converts command-line values to the arrays of an inference request.

name=photo.npy         an array
batch.npz              one array for each input, by name
name=page.png          a picture, as float32 0 to 1 or bytes, laid out as the input wants it
name=random            random values of the input's own shape, open dimensions from --shape or from its profile
name=random:1x3x8x8    the same with this shape
(nothing)              random, for every input that no word names
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile

import numpy as np

from enginesmith_cli.protocol_client import Array, TensorDescription
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.tensors import DType
from enginesmith_operator.api.regular_files import what_it_is

__all__ = ["InputError", "Inputs", "arrays_from_words", "shapes_from_words"]

_SEED: Final = 0
# How a server's metadata names the ranges of a profile.
_SHAPES: Final = "profile."
_VALUES: Final = "values."
# What numpy and Pillow raise on an empty, cut or foreign file.
_UNREADABLE: Final = (OSError, ValueError, EOFError, BadZipFile)
_MOST_BYTES: Final = 2**31 - 1
_PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
_PICTURE_RANK: Final = 4
_CHANNELS: Final = 3
_SHAPE: Final = re.compile(r"\d+(x\d+)*")


class InputError(EnginesmithError):
    """What was given for an input cannot be sent."""

    exit_code = ExitCode.USAGE
    default_reason = "InputInvalid"


def shapes_from_words(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of `name=1x3x224x224` words, by input name.

    Raises:
        InputError: a word is not of that form.
    """
    shapes = {}
    for word in words:
        name, separator, text = word.rpartition("=")
        if not separator or not name:
            raise InputError("no input is named", where=f"--shape {word}", remedy="write --shape NAME=1x3x224x224")
        shapes[name] = _shape(text, f"--shape {word}")
    return shapes


class Inputs(NamedTuple):
    """One array for each input of a model, and the numpy dtype of those that were converted, by name."""

    arrays: dict[str, Array]
    converted_from: dict[str, str]


def arrays_from_words(
    words: Sequence[str], shapes: Mapping[str, tuple[int, ...]], inputs: Sequence[TensorDescription]
) -> Inputs:
    """Return one array for each input of a model.

    Raises:
        InputError: a name that the model has not, a file that cannot be read, an open dimension that nothing fills, a
            value that the input's datatype cannot hold.
    """
    given: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if separator:
            given[name] = value
        elif word.endswith(".npz"):
            arrays.update(_arrays_of_npz(word))
        elif len(inputs) == 1:
            given[inputs[0].name] = word
        else:
            raise InputError(
                "it is not clear which input this is for",
                where=f"--input {word}",
                why=f"the model has {_listed(inputs)}",
                remedy=f"write --input {inputs[0].name}={word}",
            )
    _refuse_unknown({*given, *arrays, *shapes}, inputs)
    for tensor in inputs:
        if tensor.name not in arrays:
            arrays[tensor.name] = _array(given.get(tensor.name, "random"), tensor, shapes.get(tensor.name))
    return Inputs(
        arrays={tensor.name: _cast(arrays[tensor.name], tensor) for tensor in inputs},
        converted_from={
            tensor.name: str(arrays[tensor.name].dtype)
            for tensor in inputs
            if not _is_of_dtype(arrays[tensor.name], tensor)
        },
    )


def _array(value: str, tensor: TensorDescription, shape: tuple[int, ...] | None) -> Array:
    kind, _, text = value.partition(":")
    if kind == "random":
        wanted = _shape(text, f"--input {tensor.name}={value}") if text else shape or _own_shape(tensor)
        if prod(wanted) * (tensor.dtype.item_bytes or 1) > _MOST_BYTES:
            raise InputError(
                "too large for one request",
                where=f"input {tensor.name}",
                why=f"a tensor of shape {list(wanted)} has more than the 2 GiB that a message can hold",
                remedy="ask for a smaller shape",
            )
        return _random(tensor, wanted)
    path = Path(value)
    try:
        _refuse_special(path, f"{tensor.name}={value}")
        if path.suffix.lower() in _PICTURE_SUFFIXES:
            return _picture(path, tensor, shape)
        return _array_of_file(path, tensor)
    except FileNotFoundError as error:
        raise InputError("no such file", where=f"--input {tensor.name}={value}") from error
    except _UNREADABLE as error:
        raise InputError(
            "the file cannot be read",
            where=f"--input {tensor.name}={value}",
            why=str(error),
            remedy="give an .npy or .npz file without pickled objects, or a picture",
        ) from error


def _array_of_file(path: Path, tensor: TensorDescription) -> Array:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asarray(loaded)
    with loaded:
        if tensor.name not in loaded.files:
            held = ", ".join(loaded.files) or "nothing"
            raise InputError(
                "the archive lacks the input",
                where=str(path),
                why=f"it holds {held}, not {tensor.name}",
                remedy="save the array under the input's name",
            )
        return np.asarray(loaded[tensor.name])


def _arrays_of_npz(word: str) -> dict[str, Array]:
    try:
        _refuse_special(Path(word), word)
        with np.load(word, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except _UNREADABLE as error:
        raise InputError("the file cannot be read", where=f"--input {word}", why=str(error)) from error


def _refuse_special(path: Path, word: str) -> None:
    special = what_it_is(path)
    if special:
        raise InputError("not a file", where=f"--input {word}", why=f"it is {special}")


def _own_shape(tensor: TensorDescription) -> tuple[int, ...]:
    """Return the declared shape where it is fixed, else the opt of the first profile that the server told of."""
    if all(dimension >= 0 for dimension in tensor.shape):
        return tensor.shape
    for name, text in tensor.ranges.items():
        opt = _opt_of_range(text) if name.startswith(_SHAPES) else None
        if opt is not None and len(opt) == len(tensor.shape):
            return opt
    spelled = "x".join(str(dimension) if dimension >= 0 else "N" for dimension in tensor.shape)
    raise InputError(
        "an open dimension needs a value",
        where=f"input {tensor.name}",
        why=f"its shape is {spelled}",
        remedy=f"write --shape {tensor.name}={spelled} with numbers",
        reason="ShapeOpen",
    )


def _opt_of_range(text: str) -> tuple[int, ...] | None:
    """Return the opt of a profile's range, which servers write as JSON: {"min": [...], "opt": [...], ...}."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    opt = found.get("opt") if isinstance(found, dict) else None
    if not isinstance(opt, list) or not all(isinstance(size, int) for size in opt):
        return None
    return tuple(opt)


def _opt_values(tensor: TensorDescription) -> Iterator[tuple[int, ...]]:
    """Yield the opt values of an input that holds sizes, by profile; any other value may be refused."""
    found = (_opt_of_range(text) for name, text in sorted(tensor.ranges.items()) if name.startswith(_VALUES))
    return (opt for opt in found if opt is not None)


def _random(tensor: TensorDescription, shape: tuple[int, ...]) -> Array:
    sizes = next((opt for opt in _opt_values(tensor) if len(opt) == prod(shape)), None)
    if sizes is not None:
        return np.array(sizes, tensor.dtype.numpy).reshape(shape)
    generator = np.random.default_rng(_SEED)
    match tensor.dtype:
        case DType.BYTES:
            values = np.empty(shape, np.object_)
            values[...] = b"text"
            return values
        case DType.BOOL:
            return generator.integers(0, 2, shape).astype(np.bool_)
        case DType.FP16 | DType.FP32 | DType.FP64:
            return generator.random(shape).astype(tensor.dtype.numpy)
        case DType.BF16:
            # The upper half of a float32 is a bfloat16.
            return (generator.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        case _:
            return generator.integers(0, 2, shape).astype(tensor.dtype.numpy)


def _picture(path: Path, tensor: TensorDescription, shape: tuple[int, ...] | None) -> Array:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            "pictures need Pillow", where=str(path), remedy="install pillow, or give an .npy file"
        ) from error
    wanted = shape or _own_shape(tensor)
    channels_first = len(wanted) == _PICTURE_RANK and wanted[1] == _CHANNELS
    channels_last = len(wanted) == _PICTURE_RANK and wanted[3] == _CHANNELS
    if not channels_first and not channels_last:
        raise InputError(
            "a picture does not fit", where=f"input {tensor.name}", why=f"its shape is {wanted}, not [N,3,H,W]"
        )
    height, width = wanted[2:] if channels_first else wanted[1:3]
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((width, height)))
    values = pixels if tensor.dtype is DType.UINT8 else pixels.astype(np.float32) / 255
    return np.broadcast_to(values.transpose(2, 0, 1) if channels_first else values, wanted)


def _is_of_dtype(array: Array, tensor: TensorDescription) -> bool:
    return array.dtype.kind in "OSU" if tensor.dtype is DType.BYTES else array.dtype == tensor.dtype.numpy


def _cast(array: Array, tensor: TensorDescription) -> Array:
    """Return the array in the input's dtype where numpy calls that the same kind; BYTES from any text."""
    if tensor.dtype is DType.BYTES:
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        cast = np.empty(len(items), np.object_)
        cast[:] = items
        return cast.reshape(array.shape)
    wanted = tensor.dtype.numpy
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InputError(
            f"{array.dtype} is not {tensor.dtype}",
            where=f"input {tensor.name}",
            remedy=f"save the array as {wanted}",
            reason="DTypeMismatch",
        )
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    lost = _differs(array, converted)
    if lost.any():
        index = np.unravel_index(int(lost.argmax()), lost.shape)
        raise InputError(
            f"a value does not fit {tensor.dtype}",
            where=f"input {tensor.name}{[int(axis) for axis in index]}",
            why=f"{array[index]} of the {array.dtype} array would become {converted[index]}",
            remedy=f"send values that {tensor.dtype} can hold",
            reason="ValueOutOfRange",
        )
    return converted


def _differs(array: Array, converted: Array) -> Array:
    """Return the position of a value that changed: it wrapped around, became an infinity, or is a rounded integer.

    That a float of fewer bits rounds floats is expected.
    """
    if converted.dtype.kind != "f":
        return np.asarray(converted != array)
    if array.dtype.kind not in "iu":
        return np.asarray(np.isinf(converted) & np.isfinite(array))
    # Back to integers: numpy would compare both as FP64, which rounds them alike.
    wide = converted.astype(np.float64)
    bits = 8 * array.dtype.itemsize - (array.dtype.kind == "i")
    fits = np.isfinite(wide) & (wide < 2.0**bits)
    return np.asarray(~fits | (np.where(fits, wide, 0).astype(array.dtype) != array))


def _refuse_unknown(names: set[str], inputs: Sequence[TensorDescription]) -> None:
    unknown = sorted(names - {tensor.name for tensor in inputs})
    if unknown:
        raise InputError("no such input", where=unknown[0], why=f"the model has {_listed(inputs)}")


def _listed(inputs: Sequence[TensorDescription]) -> str:
    return ", ".join(f"{tensor.name} ({tensor.dtype} {list(tensor.shape)})" for tensor in inputs)


def _shape(text: str, where: str) -> tuple[int, ...]:
    if not _SHAPE.fullmatch(text):
        raise InputError("not a shape", where=where, why=f"found {text!r}", remedy="write 1x3x224x224")
    return tuple(int(size) for size in text.split("x"))
