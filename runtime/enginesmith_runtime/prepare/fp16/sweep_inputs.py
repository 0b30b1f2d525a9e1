"""Values for inputs of unknown range: pixels, sensors with an offset, counts, spikes, small numbers.

A model's file does not describe the values of its inputs. If the user does not describe them either, FP16 must work for
common kinds of inputs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from enginesmith_contract.backends import Precision
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.fp16.aligned import find_signs
from enginesmith_runtime.prepare.fp16.sweep_near import nearly_equal
from enginesmith_runtime.prepare.fp16.table_keys import keys_of_inputs
from enginesmith_runtime.prepare.jobs import Feed, Shapes
from enginesmith_runtime.prepare.runs.inputs import FLOATS, Array, fill_inputs, typed_values

__all__ = ["Sample", "generated_inputs", "input_limits", "open_inputs", "samples"]

_Fill = Callable[[tuple[int, ...], np.random.Generator], Array]
_BYTES: Final[Mapping[DType, tuple[float, float]]] = {DType.INT8: (-128.0, 127.0), DType.UINT8: (0.0, 255.0)}
_UNSWEPT: Final = frozenset({DType.BOOL, DType.BYTES})
_IMAGE_RANK: Final = 4
_FEW_COLUMNS: Final = 4
_MOST_INPUTS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One set of values for a model's inputs.

    Attributes:
        names: Inputs with the values that `words` describe. The others have the values of the reference runs.
        words: Description of the values, which follows the names in a sentence.
        inputs: Arrays by name.
        is_rare: Whether a difference only causes a warning and keeps no node in FP32.
        tiny: Upper bound of the values as text. A difference then only causes a warning if the outputs are as small.
    """

    names: tuple[str, ...]
    words: str
    inputs: dict[str, Array]
    is_rare: bool = False
    tiny: str = ""


def open_inputs(feed: Feed, precision: Precision) -> tuple[str, ...]:
    """Return the inputs that the user has not described and whose values may not fit the precision."""
    held = {*_BYTES, DType(precision.value.upper())}
    return tuple(spec.name for spec in _undescribed(feed) if spec.dtype not in held)


def generated_inputs(feed: Feed) -> tuple[str, ...]:
    """Return the numeric inputs, including ids, that the user has not described."""
    ids = feed.index_bounds.keys() - feed.values.keys() - feed.given.keys()
    names = {spec.name for spec in _undescribed(feed)} | ids
    return tuple(spec.name for spec in feed.facts.inputs if spec.name in names)


def _undescribed(feed: Feed) -> Iterator[TensorSpec]:
    """Yield the numeric inputs except table ids and sizes that have no values from the user."""
    known = feed.values.keys() | feed.given.keys() | feed.index_bounds.keys()
    for spec in feed.facts.inputs:
        number = spec.dtype in FLOATS or len(spec.shape) > 0  # a single integer is a size or a number of steps
        if spec.dtype not in _UNSWEPT and number and spec.name not in known:
            yield spec


def samples(model: Path, feed: Feed, shapes: Shapes, seed: str) -> Iterator[Sample]:
    """Yield the samples: all inputs together, values from the model's weights, and nearly equal inputs."""
    ordinary = fill_inputs(feed, shapes, seed)
    specs = {spec.name: spec for spec in feed.facts.inputs}
    ranges = _given_ranges(feed)
    names = tuple(spec.name for spec in _undescribed(feed))
    groups = [names, *((name,) for name in names[:_MOST_INPUTS] if len(names) > 1)]
    for number, group in enumerate(groups):
        shared = [set(_fills(specs[name], shapes[name])) for name in group]
        for words in _FILLS:
            chosen = [name for name, known in zip(group, shared, strict=True) if words in known]
            if chosen and (len(names) == 1 or len(group) > 1 or words in _LARGE):
                yield _sample(ordinary, {name: specs[name].dtype for name in chosen}, words, _FILLS[words])
        if not number:
            yield from _fitting(model, feed, ordinary)
    for name, values in ranges.items():
        for words, fill in _inside(values, has_tiny=specs[name].dtype in FLOATS).items():
            yield _sample(ordinary, {name: specs[name].dtype}, words, fill)


def input_limits(feed: Feed) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest value of inputs that are limited by their dtype, range or constant."""
    limits = {spec.name: _BYTES[spec.dtype] for spec in feed.facts.inputs if spec.dtype in _BYTES}
    constants = {name: (one.constant, one.constant) for name, one in feed.values.items() if one.constant is not None}
    return limits | constants | {name: values.range for name, values in feed.values.items() if values.range}


def _given_ranges(feed: Feed) -> dict[str, InputValues]:
    """Return the ranges of numeric inputs except ids."""
    dtypes = {spec.name: spec.dtype for spec in feed.facts.inputs}
    return {
        name: values
        for name, values in feed.values.items()
        if values.range and dtypes[name] not in _UNSWEPT and name not in feed.index_bounds
    }


def _fitting(model: Path, feed: Feed, ordinary: dict[str, Array]) -> Iterator[Sample]:
    """Yield samples for this model: keys of its tables, nearly equal values, and the signs of its weights."""
    keys = keys_of_inputs(model)
    for words, found in ((_KEYS, keys.known), (_AMPLIFIED, keys.amplified)):
        looked_up = {name: each for name, each in found.items() if name not in {*feed.values, *feed.given}}
        if looked_up:
            filled = {name: _keyed(array, looked_up[name]) for name, array in ordinary.items() if name in looked_up}
            yield Sample(names=tuple(filled), words=words, inputs=ordinary | filled)
    names = tuple(spec.name for spec in _undescribed(feed))
    near = nearly_equal(feed, ordinary, names, keys.alike)
    if near:
        yield Sample(names=tuple(near), words=_NEAR, inputs=ordinary | near)
    dtypes = {spec.name: spec.dtype for spec in feed.facts.inputs}
    known = {name: limits for name, limits in input_limits(feed).items() if name in {*names, *_given_ranges(feed)}}
    open_floats = [name for name in names if dtypes[name] in FLOATS]
    for by_direction, open_limits in ((False, (-6.0, 6.0)), (True, (0.0, 255.0))):
        limits = {**dict.fromkeys(open_floats, open_limits), **known}
        signs = find_signs(model, feed, ordinary, tuple(limits), by_direction=by_direction)
        filled = {
            name: _held(np.where(each > 0, limits[name][1], limits[name][0]), dtypes[name])
            for name, each in signs.items()
        }
        if filled:
            low, high = limits[next(iter(filled))]
            what = "strongest direction" if by_direction else "largest weights"
            words = f"of {low:g} and {high:g} as they fit the {what} of a first layer"
            yield Sample(names=tuple(filled), words=words, inputs=ordinary | filled)


def _sample(ordinary: dict[str, Array], dtypes: dict[str, DType], words: str, fill: _Fill) -> Sample:
    random = np.random.default_rng(len(words))
    filled = {
        name: _held(fill(array.shape, random), dtypes[name]) if name in dtypes else array
        for name, array in ordinary.items()
    }
    return Sample(names=tuple(dtypes), words=words, inputs=filled, is_rare=words == _RARE, tiny=_TINY.get(words, ""))


def _keyed(array: Array, keys: Array) -> Array:
    """Return keys in an input's dtype. Some of them are the first key, which has the largest number."""
    random = np.random.default_rng(0)
    chosen = keys[random.integers(0, len(keys), array.size)]
    chosen[::7] = keys[0]
    return chosen.reshape(array.shape).astype(array.dtype)


def _held(values: Array, dtype: DType) -> Array:
    """Return values in a dtype, clipped to its range."""
    if dtype is DType.BF16:
        return typed_values(values, dtype)
    limits = np.finfo(dtype.numpy.name) if dtype in FLOATS else np.iinfo(dtype.numpy.name)
    return typed_values(np.clip(values, float(limits.min), float(limits.max)), dtype)


def _spikes(shape: tuple[int, ...], _: np.random.Generator) -> Array:
    values = np.zeros(int(np.prod(shape)))
    values[::97] = 1000
    return values.reshape(shape)


def _heavy(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    values = random.integers(0, 201, int(np.prod(shape)))
    values[::97] = 30_000_000
    return values.reshape(shape)


def _columns(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    values = random.random(shape)
    values[..., ::16] = random.integers(0, 10_001, values[..., ::16].shape)
    return values


_KEYS: Final = "that hold keys of the model's tables and comparisons"
_AMPLIFIED: Final = "that name rows of a table which layers amplify"
_NEAR: Final = "of nearly equal values in inputs and rows"
_RARE: Final = "between 0 and 100,000"
_OF_FLOATS: Final[dict[str, _Fill]] = {
    "of 1": lambda shape, _: np.ones(shape),
    "between -6 and 6": lambda shape, random: np.clip(2 * random.standard_normal(shape), -6, 6),
    "between 0 and 255": lambda shape, random: 255 * random.random(shape),
    "between -1000 and 1000": lambda shape, random: random.uniform(-1000, 1000, shape),
    "between 900 and 1000": lambda shape, random: random.uniform(900, 1000, shape),
    "between 1011 and 1015": lambda shape, random: random.uniform(1011, 1015, shape),
    "between 100 and 102": lambda shape, random: random.uniform(100, 102, shape),
    "of 0 and single ones of 1000": _spikes,
    "on a line from 0 to 1": lambda shape, _: np.linspace(0, 1, int(np.prod(shape))).reshape(shape),
    "of a pure tone": lambda shape, _: np.sin(0.3927 * np.arange(int(np.prod(shape)))).reshape(shape),
    "of at most 0.0001": lambda shape, random: 1e-4 * random.standard_normal(shape),
    "of at most 0.000001": lambda shape, random: 1e-6 * random.uniform(-1, 1, shape),
    "of at most 0.000000001": lambda shape, random: 1e-9 * random.uniform(-1, 1, shape),
    _RARE: lambda shape, random: 100_000 * random.random(shape),
    "up to 100,000": lambda shape, random: random.integers(0, 100_001, shape),
    "up to 10,000 in some columns": _columns,
}
_INTEGERS: Final[dict[str, _Fill]] = {
    "of whole numbers from 0 to 10": lambda shape, random: random.integers(0, 11, shape),
    "of whole numbers from 0 to 5000": lambda shape, random: random.integers(0, 5001, shape),
    "of whole numbers from -200,000 to 200,000": lambda shape, random: random.integers(-200_000, 200_001, shape),
    "of whole numbers from 0 to 200 and single ones of 30,000,000": _heavy,
}
_OF_BYTES: Final[dict[str, _Fill]] = {
    "of bytes": lambda shape, random: random.integers(-128, 256, shape),
    "of the largest byte": lambda shape, _: np.full(shape, 255),
}
_FILLS: Final = _OF_FLOATS | _INTEGERS | _OF_BYTES
# Kinds that keep their form in another range.
_SCALED: Final = {
    "on a line from 0 to 1": ("on a line from", "to"),
    "of a pure tone": ("of a pure tone between", "and"),
}
_TINY: Final = {"of at most 0.000001": "0.000001", "of at most 0.000000001": "0.000000001"}
_LARGE: Final = _INTEGERS.keys() | _OF_BYTES | {"between -1000 and 1000", "between 1011 and 1015", "up to 100,000"}


def _fills(spec: TensorSpec, shape: tuple[int, ...]) -> Iterator[str]:
    """Yield the possible kinds of values for the dtype and shape. Images have no positions, but columns may."""
    if spec.dtype not in FLOATS:
        yield from _OF_BYTES if spec.dtype in _BYTES else _INTEGERS
        return
    narrow = len(shape) <= 1 or shape[-1] <= _FEW_COLUMNS
    image = len(spec.shape) >= _IMAGE_RANK
    for words in _OF_FLOATS:
        if not words.startswith("up to") or (not image and narrow == (words == "up to 100,000")):
            yield words


def _inside(values: InputValues, *, has_tiny: bool) -> dict[str, _Fill]:
    """Return the kinds of values inside a range of the user: its ends, narrow parts, and tiny numbers around 0."""
    low, high = values.range or (0.0, 0.0)
    middle, width = (low + high) / 2, (high - low) / 100
    narrow = f"between {middle - width:.6g} and {middle + width:.6g}"
    top = high - width / 5
    tiny = _TINY if has_tiny and low <= 0 <= high else {}
    scaled = {
        f"{start} {low:g} {joint} {high:g}": _scaled(_OF_FLOATS[words], low, high)
        for words, (start, joint) in _SCALED.items()
    }
    return {
        **{words: _within(_OF_FLOATS[words], low, high) for words in sorted(tiny)},
        f"between {top:.6g} and {high:.6g}": lambda shape, random: random.uniform(top, high, shape),
        narrow: lambda shape, random: random.uniform(middle - width, middle + width, shape),
        f"of {low:g}": lambda shape, _: np.full(shape, low),
        f"of {high:g}": lambda shape, _: np.full(shape, high),
        f"of {low:g} and {high:g}": lambda shape, random: np.where(random.random(shape) < 0.5, low, high),  # noqa: PLR2004 - a coin
        **scaled,
    }


def _scaled(fill: _Fill, low: float, high: float) -> _Fill:
    """Return the kind of values scaled to a range."""

    def fill_scaled(shape: tuple[int, ...], random: np.random.Generator) -> Array:
        values = np.asarray(fill(shape, random), np.float64)
        width = float(np.ptp(values)) if values.size else 0.0
        return low + (values - values.min(initial=np.inf)) * ((high - low) / width) if width else values * 0 + low

    return fill_scaled


def _within(fill: _Fill, low: float, high: float) -> _Fill:
    return lambda shape, random: np.clip(np.asarray(fill(shape, random), np.float64), low, high)
