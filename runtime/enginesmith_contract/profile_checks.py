"""Checks of shape profiles against the model's inputs, before anything runs.

The plan uses these checks if the model's facts are known, and the preparation always uses them. A builder finds the
same faults, but on a GPU and with a message that says less ("Dimension mismatch for tensor x and profile 0"). Here
every fault names the tensor, the dimension, the value and the nearest valid value.

Shapes are in elements. Dimensions count from 0.
"""

import difflib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Final, NamedTuple

import numpy as np

from enginesmith_contract.errors import SpecError
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profile_suggestions import shape_text, suggest_profile, values_entry
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec

__all__ = ["ProfileProblem", "check_profiles", "complete_profiles", "find_missing_values", "profiles_refused"]

_POINTS: Final = ("min", "opt", "max")


class ProfileProblem(Record):
    """One fault of one profile.

    Attributes:
        reason: ProfileMissing, DuplicateProfile, UnknownInput, MissingInput, RankMismatch, NegativeDimension,
            FixedDimension, NotOrdered or SymbolDisagrees; of values: ValuesNotInteger, ValuesNeedOneShape, ValuesCount,
            ValuesNotOrdered, ValuesOutOfType or MissingValues.
        profile: Name of the profile; empty if there is no profile.
        tensor: Name of the input; empty if the fault concerns the whole profile.
        dimension: Index of the dimension; None if the fault does not concern a single dimension.
        found: Text that states what the profile and the model have.
        nearest: Nearest valid value, as text for the document; empty if there is none.
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
    """Return every fault of `profiles`, in the order of profiles, inputs and dimensions.

    A profile may omit a static input, and a static model needs no profile: see `complete_profiles`.
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

    `check_profiles` must have returned no faults. Inputs are in the model's order.
    """
    fixed = {spec.name: _fixed_range(spec) for spec in facts.inputs if not spec.is_dynamic}
    order = [spec.name for spec in facts.inputs]
    return tuple(
        Profile(name=profile.name, inputs={name: {**fixed, **profile.inputs}[name] for name in order})
        for profile in (profiles or (Profile(),))
    )


def find_missing_values(facts: ModelFacts, profiles: Sequence[Profile]) -> tuple[ProfileProblem, ...]:
    """Return a fault for each profile and input that holds sizes and has no range of values, which TensorRT needs.

    `nearest` is an entry to paste below the profile's `inputs`, with one value at all three points.
    """
    specs = {spec.name: spec for spec in facts.inputs}
    return tuple(
        ProfileProblem(
            reason="MissingValues",
            profile=profile.name,
            tensor=name,
            found="its values are sizes or shapes inside the model, and TensorRT needs the range of them",
            nearest=values_entry(specs[name]),
        )
        for profile in (profiles or (Profile(),))
        for name in facts.shape_inputs
        if name not in profile.inputs or profile.inputs[name].values is None
    )


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
    for reason, found in _value_faults(spec, sizes):
        yield problem(reason, None, found)


def _value_faults(spec: TensorSpec, sizes: ShapeRange) -> Iterator[tuple[str, str]]:
    """Yield reason and text of each fault of the range of an input's values."""
    values = sizes.values
    if values is None:
        return
    if not np.issubdtype(spec.dtype.numpy, np.integer) or spec.dtype is DType.BF16:
        yield "ValuesNotInteger", f"values are for integer inputs, and this one is {spec.dtype}"
        return
    if not sizes.min == sizes.opt == sizes.max:
        yield "ValuesNeedOneShape", "values need min, opt and max to be one shape"
        return
    count, limits = prod(sizes.opt), np.iinfo(str(spec.dtype.numpy))
    for point, numbers in (("min", values.min), ("opt", values.opt), ("max", values.max)):
        if len(numbers) != count:
            found = f"values.{point} has {len(numbers)} elements, and shape {list(sizes.opt)} has {count}"
            yield "ValuesCount", found
            return
        for number in numbers:
            if not limits.min <= number <= limits.max:
                yield "ValuesOutOfType", f"values.{point} holds {number}, which {spec.dtype} cannot"
    for index, (low, best, high) in enumerate(zip(values.min, values.opt, values.max, strict=True)):
        if not low <= best <= high:
            found = f"element {index} of values: min {low}, opt {best}, max {high} are not in ascending order"
            yield "ValuesNotOrdered", found


class _Use(NamedTuple):
    """First use of a symbol in a profile, and its size there."""

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


def profiles_refused(
    facts: ModelFacts, problems: tuple[ProfileProblem, ...], preprocess: tuple[Preprocess, ...]
) -> SpecError:
    """Return the error for profiles that do not fit a model. It has a profile to paste if there is none."""
    if problems[0].reason == "ProfileMissing":
        return SpecError(
            "the model needs shape profiles",
            where="spec.profiles",
            why=problems[0].found,
            remedy=f"add below spec, with your own sizes:\n{suggest_profile(facts)}",
            reason="ProfileMissing",
        )
    pixels = {entry.input for entry in preprocess} & {problem.tensor for problem in problems}
    shapes = [f"{spec.name} has the shape {shape_text(spec)}" for spec in facts.inputs if spec.name in pixels]
    return SpecError(
        "the profiles do not fit the model",
        where="spec.profiles",
        why="; ".join(problem.sentence() for problem in problems),
        remedy="correct the profiles" + (f"; with model.preprocess, {' and '.join(shapes)}" if shapes else ""),
        reason=problems[0].reason,
    )
