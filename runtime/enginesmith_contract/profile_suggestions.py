"""Suggested profiles as YAML. Sizes are guesses from the names and positions of a model's open dimensions."""

import json
import re
from collections.abc import Sequence
from math import prod
from typing import Final, NamedTuple

from enginesmith_contract.profiles import POINTS, Profile, ShapeRange, ValueRange
from enginesmith_contract.tensors import ModelFacts, TensorSpec

__all__ = ["guess_profile", "profile_text", "range_text", "shape_text", "suggest_profile", "values_entry"]


def suggest_profile(facts: ModelFacts) -> str:
    """Return a guessed profile for the model as YAML, indented to be pasted below `spec:`."""
    return profile_text(facts, guess_profile(facts))


def guess_profile(facts: ModelFacts) -> Profile:
    """Return a profile with guessed sizes.

    Dimensions that share a symbol get one size, so the profile always passes `check_profiles`.
    """
    chosen: dict[str, tuple[int, int, int]] = {}
    ranges: dict[str, ShapeRange] = {}
    for spec in facts.inputs:
        sizes = [_suggest_sizes(spec, axis, chosen) for axis in range(len(spec.shape))]
        low, best, high = (tuple(size[point] for size in sizes) for point in range(len(POINTS)))
        values = _ones(best) if spec.name in facts.shape_inputs else None
        ranges[spec.name] = ShapeRange(min=low, opt=best, max=high, values=values)
    return Profile(inputs=ranges)


def profile_text(facts: ModelFacts, profile: Profile) -> str:
    """Return the profile as YAML, indented to be pasted below `spec:`."""
    lines = ["  profiles:", f"    - name: {profile.name}", "      inputs:"]
    lines += [
        f"        {_yaml_key(spec.name)}: {range_text(profile.inputs[spec.name])}  # {shape_text(spec)}"
        for spec in facts.inputs
    ]
    return "\n".join(lines) + "\n"


def range_text(sizes: ShapeRange) -> str:
    """Return the range of an input as one line of YAML."""
    shapes = _points_text(sizes.min, sizes.opt, sizes.max)
    values = sizes.values
    return (
        f"{{{shapes}}}"
        if values is None
        else (f"{{{shapes}, values: {{{_points_text(values.min, values.opt, values.max)}}}}}")
    )


def values_entry(spec: TensorSpec) -> str:
    """Return the entry of an input of fixed shape that holds sizes, as one line to paste below a profile's `inputs`."""
    sizes = ShapeRange.fixed(spec.shape, _ones(spec.shape))
    return f"{_yaml_key(spec.name)}: {range_text(sizes)}"


def shape_text(spec: TensorSpec) -> str:
    """Return the model's own shape of an input with the names of its open dimensions: `[batch, 3, ?, ?]`."""
    return f"[{', '.join(_axis_text(spec, axis) for axis in range(len(spec.shape)))}]"


def _points_text(*points: Sequence[int]) -> str:
    return ", ".join(f"{name}: [{', '.join(map(str, point))}]" for name, point in zip(POINTS, points, strict=True))


def _ones(shape: tuple[int, ...]) -> ValueRange:
    ones = (1,) * prod(shape)
    return ValueRange(min=ones, opt=ones, max=ones)


def _axis_text(spec: TensorSpec, axis: int) -> str:
    size = spec.shape[axis]
    return str(size) if size >= 0 else spec.symbol(axis) or "?"


class _Guess(NamedTuple):
    """Sizes for dimensions that have one of the words in their name."""

    words: tuple[str, ...]
    sizes: tuple[int, int, int]


# The first match applies. The sizes are so small that a CPU can run max within the preparation's budget.
_GUESSES: Final = (
    _Guess(("batch", "bs"), (1, 4, 8)),
    _Guess(("height", "width", "image", "h", "w"), (32, 320, 640)),
    _Guess(("seq", "token", "length", "len", "time"), (1, 128, 512)),
)
_ANY_SIZE: Final = (1, 16, 64)
_BATCH: Final = _GUESSES[0].sizes
_IMAGE: Final = _GUESSES[1].sizes
_IMAGE_RANK: Final = 4


def _suggest_sizes(spec: TensorSpec, axis: int, chosen: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    """Guess sizes by name, else by position; `chosen` stores the sizes of each symbol after its first use."""
    size = spec.shape[axis]
    if size >= 0:
        return (size, size, size)
    symbol = spec.symbol(axis)
    if symbol is None:
        return _suggest_by_place(spec, axis)
    if symbol not in chosen:
        words = re.split(r"[^a-z]+", symbol.lower())
        named = (guess.sizes for guess in _GUESSES if any(_matches(word, guess.words) for word in words))
        chosen[symbol] = next(named, _suggest_by_place(spec, axis))
    return chosen[symbol]


def _suggest_by_place(spec: TensorSpec, axis: int) -> tuple[int, int, int]:
    if axis == 0:
        return _BATCH
    return _IMAGE if len(spec.shape) == _IMAGE_RANK else _ANY_SIZE


def _matches(word: str, known: tuple[str, ...]) -> bool:
    return any(word == name or (len(name) > 1 and word.startswith(name)) for name in known)


_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def _yaml_key(name: str) -> str:
    plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)
