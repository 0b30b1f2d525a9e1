"""Shape profiles held against what a model says of its inputs, before anything runs.

The plan uses these checks where a model's facts are known, the preparation uses them always. A builder that finds the
same faults does so on a GPU and in its own words ("Dimension mismatch for tensor x and profile 0"); here every fault
names the tensor, the dimension, the value and the nearest value that would do.

Shapes are in elements. Dimensions count from 0.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ModelFacts, TensorSpec

__all__ = ["ProfileProblem", "check_profiles", "complete_profiles", "shape_text", "suggest_profile"]

_POINTS: Final = ("min", "opt", "max")


class ProfileProblem(Record):
    """One fault of one profile.

    Attributes:
        reason: ProfileMissing, DuplicateProfile, UnknownInput, MissingInput, RankMismatch, NegativeDimension,
            FixedDimension, NotOrdered or SymbolDisagrees.
        profile: the profile's name; empty where there is none at all.
        tensor: the input; empty where the fault is the profile's own.
        dimension: which one; None where the fault is not one dimension's.
        found: what the profile says and what the model says, in words.
        nearest: the nearest valid value, as it would be written; empty where there is none to offer.
    """

    reason: str
    profile: str
    tensor: str = ""
    dimension: int | None = None
    found: str
    nearest: str = ""

    def sentence(self) -> str:
        """Return the fault as one line."""
        place = [f"profile {self.profile!r}"] if self.profile else []
        place += [f"input {self.tensor!r}"] if self.tensor else []
        place += [f"dimension {self.dimension}"] if self.dimension is not None else []
        head = f"{', '.join(place)}: {self.found}" if place else self.found
        return f"{head}; use {self.nearest}" if self.nearest else head


def check_profiles(facts: ModelFacts, profiles: Sequence[Profile]) -> tuple[ProfileProblem, ...]:
    """Return every fault of `profiles`, in the order of profiles, inputs and dimensions; empty where all is well.

    A static input may be left out of a profile, and a static model needs none: see `complete_profiles`.
    """
    dynamic = [spec for spec in facts.inputs if spec.is_dynamic]
    if not profiles and dynamic:
        names = ", ".join(f"{spec.name} {shape_text(spec)}" for spec in dynamic)
        return (
            ProfileProblem(reason="ProfileMissing", profile="", found=f"the model leaves dimensions open: {names}"),
        )
    return tuple(
        problem for number, profile in enumerate(profiles) for problem in _check(facts, profiles, number, profile)
    )


def complete_profiles(facts: ModelFacts, profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    """Return the profiles with every static input filled in; a static model without profiles gets one, "default".

    `check_profiles` must have found nothing. Inputs are in the model's order.
    """
    fixed = {spec.name: _fixed_range(spec) for spec in facts.inputs if not spec.is_dynamic}
    order = [spec.name for spec in facts.inputs]
    return tuple(
        Profile(name=profile.name, inputs={name: {**fixed, **profile.inputs}[name] for name in order})
        for profile in (profiles or (Profile(),))
    )


def suggest_profile(facts: ModelFacts) -> str:
    """Return a profile for the model as YAML to paste below `spec`; sizes are guesses from the dimensions' names.

    Dimensions that share a symbol get one size, so what is suggested always passes `check_profiles`.
    """
    lines = ["profiles:", "  - name: default", "    inputs:"]
    chosen: dict[str, tuple[int, int, int]] = {}
    for spec in facts.inputs:
        sizes = [_suggest_sizes(spec, axis, chosen) for axis in range(len(spec.shape))]
        ranges = ", ".join(f"{point}: [{', '.join(str(size[i]) for size in sizes)}]" for i, point in enumerate(_POINTS))
        lines.append(f"      {_yaml_key(spec.name)}: {{{ranges}}}  # {shape_text(spec)}")
    return "\n".join(lines) + "\n"


def shape_text(spec: TensorSpec) -> str:
    """Return the model's own shape of an input with the names of its open dimensions: `[batch, 3, ?, ?]`."""
    return f"[{', '.join(_axis_text(spec, axis) for axis in range(len(spec.shape)))}]"


def _check(facts: ModelFacts, profiles: Sequence[Profile], number: int, profile: Profile) -> Iterator[ProfileProblem]:
    if any(other.name == profile.name for other in profiles[:number]):
        found = f"the name {profile.name!r} is used twice"
        yield ProfileProblem(reason="DuplicateProfile", profile=profile.name, found=found)
    known = {spec.name: spec for spec in facts.inputs}
    for name in profile.inputs:
        if name not in known:
            yield _unknown_input(profile, name, list(known))
    for spec in facts.inputs:
        sizes = profile.inputs.get(spec.name)
        if sizes is not None:
            yield from _check_range(profile, spec, sizes)
        elif spec.is_dynamic:
            found = f"no shapes, and the model leaves it open: {shape_text(spec)}"
            yield ProfileProblem(reason="MissingInput", profile=profile.name, tensor=spec.name, found=found)
    yield from _check_symbols(facts, profile)


def _unknown_input(profile: Profile, name: str, known: list[str]) -> ProfileProblem:
    folded = {one.casefold(): one for one in known}
    close = [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)]
    nearest = close or (known if len(known) == 1 else [])
    return ProfileProblem(
        reason="UnknownInput",
        profile=profile.name,
        tensor=name,
        found=f"the model has no such input; it has {', '.join(known) or 'none'}",
        nearest=nearest[0] if nearest else "",
    )


def _check_range(profile: Profile, spec: TensorSpec, sizes: ShapeRange) -> Iterator[ProfileProblem]:
    def problem(reason: str, axis: int | None, found: str, nearest: str = "") -> ProfileProblem:
        return ProfileProblem(
            reason=reason, profile=profile.name, tensor=spec.name, dimension=axis, found=found, nearest=nearest
        )

    wrong_rank = [(point, shape) for point, shape in _points(sizes) if len(shape) != len(spec.shape)]
    for point, shape in wrong_rank:
        found = f"{point} {list(shape)} has {_count(len(shape))}, the model's {shape_text(spec)} {len(spec.shape)}"
        yield problem("RankMismatch", None, found, f"{point}: {shape_text(spec)}")
    if wrong_rank:
        return
    for axis, wanted in enumerate(spec.shape):
        values = [shape[axis] for _, shape in _points(sizes)]
        for point, value in zip(_POINTS, values, strict=True):
            if wanted >= 0 and value != wanted:
                yield problem(
                    "FixedDimension", axis, f"{point} is {value}, the model fixes it at {wanted}", str(wanted)
                )
            elif value < 0:
                yield problem("NegativeDimension", axis, f"{point} is {value}, and no input can have that", "0")
        if wanted < 0 and values != sorted(values):
            low, best, high = sorted(values)
            found = f"min {values[0]}, opt {values[1]}, max {values[2]} are not in ascending order"
            yield problem("NotOrdered", axis, found, f"min {low}, opt {best}, max {high}")


class _Use(NamedTuple):
    """Where a symbol was seen first in a profile, and its size there."""

    tensor: str
    axis: int
    size: int


def _check_symbols(facts: ModelFacts, profile: Profile) -> Iterator[ProfileProblem]:
    first: dict[tuple[str, str], _Use] = {}
    for spec in facts.inputs:
        sizes = profile.inputs.get(spec.name)
        if sizes is None or any(len(shape) != len(spec.shape) for _, shape in _points(sizes)):
            continue
        for axis, symbol in enumerate(spec.symbols):
            if symbol is None:
                continue
            for point, shape in _points(sizes):
                here = _Use(spec.name, axis, shape[axis])
                seen = first.setdefault((symbol, point), here)
                if seen.size != here.size:
                    yield ProfileProblem(
                        reason="SymbolDisagrees",
                        profile=profile.name,
                        tensor=spec.name,
                        dimension=axis,
                        found=f"{point} is {here.size}, but the model calls it {symbol!r} like dimension "
                        f"{seen.axis} of {seen.tensor!r}, whose {point} is {seen.size}",
                        nearest=str(seen.size),
                    )


def _points(sizes: ShapeRange) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return (("min", sizes.min), ("opt", sizes.opt), ("max", sizes.max))


def _count(dimensions: int) -> str:
    return f"{dimensions} dimension{'' if dimensions == 1 else 's'}"


def _fixed_range(spec: TensorSpec) -> ShapeRange:
    return ShapeRange(min=spec.shape, opt=spec.shape, max=spec.shape)


def _symbol(spec: TensorSpec, axis: int) -> str | None:
    return spec.symbols[axis] if axis < len(spec.symbols) else None


def _axis_text(spec: TensorSpec, axis: int) -> str:
    size = spec.shape[axis]
    return str(size) if size >= 0 else _symbol(spec, axis) or "?"


class _Guess(NamedTuple):
    """Sizes for dimensions whose name has one of the words."""

    words: tuple[str, ...]
    sizes: tuple[int, int, int]


# The first that fits wins; small enough that a CPU can run max within the preparation's budget.
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
    """Guess by name, else by place; `chosen` keeps what a symbol got where it was met first."""
    size = spec.shape[axis]
    if size >= 0:
        return (size, size, size)
    symbol = _symbol(spec, axis)
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
