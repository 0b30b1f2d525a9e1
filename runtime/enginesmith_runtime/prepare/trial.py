"""Finds a profile that the model accepts, for `enginesmith inspect`.

Sizes are guessed from the names of dimensions and tried. If the model refuses a size, a probe searches for another. If
a point does not fit the budget, the next smaller point replaces it.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import ExerciseStatus
from enginesmith_contract.profile_suggestions import guess_profile
from enginesmith_contract.profiles import POINTS, Profile, ShapeRange
from enginesmith_contract.tensors import ModelFacts
from enginesmith_runtime.onnx_graphs.emulation import emulate
from enginesmith_runtime.onnx_graphs.graph import read_graph
from enginesmith_runtime.onnx_graphs.order import order_warnings, sort_nodes
from enginesmith_runtime.prepare.jobs import Change, Feed, OtherSize
from enginesmith_runtime.prepare.model_file.facts import facts_of
from enginesmith_runtime.prepare.model_file.index_bounds import find_index_bounds
from enginesmith_runtime.prepare.model_file.readable_weights import make_weights_readable
from enginesmith_runtime.prepare.runs.exercise import Exercised, attempt
from enginesmith_runtime.prepare.runs.observed_shapes import correct_outputs
from enginesmith_runtime.prepare.runs.points import Budget
from enginesmith_runtime.prepare.runs.refused_points import RefusedPoint, say_values

__all__ = ["Trial", "try_model"]

_MOST_CHANGES: Final = 24
# Sizes that some models require for all open dimensions except the batch.
_COMMON_SIZES: Final = (224, 48, 64, 32, 16, 8, 128, 4, 2, 1, 256, 512, 640)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Facts about a model, and the results of its runs.

    Attributes:
        facts: Facts with the outputs from the nodes and the runs.
        warnings: One warning for each wrong declaration.
        profile: Profile that ran at min, opt and max; None if no guess did.
        words: Reason why there is no profile; empty if there is one.
    """

    facts: ModelFacts
    warnings: tuple[str, ...]
    profile: Profile | None
    words: str = ""


def try_model(path: Path, folder: Path, *, memory_bytes: int, seconds: float) -> Trial:
    """Run a model with guessed profiles until one works.

    Args:
        path: Path of the ONNX file.
        folder: Empty folder for temporary files.
        memory_bytes: Memory limit of one run in bytes.
        seconds: Time limit of all runs together.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx`, `GraphHasCycle`, `ModelHasNoTensors` or
            `TensorTypeUnsupported`.
    """
    model = read_graph(path)
    copy, runs = folder / "source", folder / "runs"
    copy.mkdir()
    runs.mkdir()
    late = sort_nodes(model, path.name)
    files = make_weights_readable(model, path, copy, changed=late > 0)
    said = facts_of(model, path)
    warnings = (*said.warnings, *order_warnings(late))
    emulation = emulate(model)
    feed = Feed(
        facts=said.facts,
        index_bounds=find_index_bounds(model.graph),
        emulated=emulation is not None and emulation.has_bf16,
    )
    budget = Budget(memory_bytes=memory_bytes, deadline=time.monotonic() + seconds)
    search = _Search(copy / files[0] if files else path, feed, runs, budget)
    try:
        profile = search.run()
        facts, corrections = correct_outputs(said.facts, said.unranked, search.exercised.seen)
    except ModelError as error:
        return Trial(facts=said.facts, warnings=warnings, profile=None, words=error.sentence())
    return Trial(facts=facts, warnings=(*warnings, *corrections, *search.warnings), profile=profile, words=search.words)


class _Search:
    """Searches for a profile that the model accepts.

    Attributes:
        exercised: Results of the last profile that was not refused.
        words: Reason of the last refusal.
        warnings: One warning for each change of input values.
    """

    def __init__(self, model: Path, feed: Feed, folder: Path, budget: Budget) -> None:
        self.exercised = Exercised(exercises=(), stored=(), seen=(), nan={}, varied=None)
        self.words = ""
        self.warnings: tuple[str, ...] = ()
        self._model = model
        self._feed = feed
        self._folder = folder
        self._budget = budget

    def run(self) -> Profile | None:
        """Return a profile that ran at every point, or None.

        Raises:
            enginesmith_contract.errors.ModelError: `ModelNotRunnable`.
        """
        profile = guess_profile(self._feed.facts)
        for _ in range(_MOST_CHANGES):
            outcome = self._attempt(profile)
            if not isinstance(outcome, RefusedPoint):
                return self._verified(profile)
            if outcome.change is None or self._budget.is_spent:
                break
            profile = self._changed(profile, outcome.point.point, outcome.change)
        for fixed in _fixed_profiles(self._feed.facts):
            if self._budget.is_spent:
                break
            if not isinstance(self._attempt(fixed), RefusedPoint):
                return self._verified(fixed)
        return None

    def _changed(self, profile: Profile, point: str, change: Change) -> Profile:
        """Return the profile with a size that works. Values that work are used for later runs."""
        if isinstance(change, OtherSize):
            return _resized(profile, self._feed.facts, point, change)
        values = {**self._feed.values, **dict.fromkeys(change.inputs, change.values)}
        self._feed = self._feed.model_copy(update={"values": values})
        said = f"the model refuses the values that its inputs are filled with: {say_values(change)}"
        self.warnings = (*self.warnings, said)
        return profile

    def _attempt(self, profile: Profile) -> Exercised | RefusedPoint:
        outcome = attempt(
            self._model, self._feed, [profile], folder=self._folder, budget=self._budget, tick=lambda _: None
        )
        if isinstance(outcome, RefusedPoint):
            self.words = outcome.words
        else:
            self.exercised, self.words = outcome, ""
        return outcome

    def _verified(self, profile: Profile) -> Profile | None:
        """Return the profile without points that did not fit the budget."""
        statuses = {entry.point: entry for entry in self.exercised.exercises}
        passed = [point for point in POINTS if statuses[point].status is ExerciseStatus.PASSED]
        if "min" not in passed:
            self.words = statuses["min"].reason
            return None
        opt = "opt" if "opt" in passed else "min"
        largest = "max" if "max" in passed else opt
        return Profile(
            name=profile.name,
            inputs={
                name: ShapeRange(min=sizes.min, opt=sizes.at(opt), max=sizes.at(largest), values=sizes.values)
                for name, sizes in profile.inputs.items()
            },
        )


def _resized(profile: Profile, facts: ModelFacts, point: str, change: OtherSize) -> Profile:
    """Return the profile with a working size at one point of every similar dimension. Other points stay in order."""
    place = next(spec for spec in facts.inputs if spec.name == change.input)
    symbol = place.symbol(change.axis)
    inputs = dict(profile.inputs)
    for spec in facts.inputs:
        for axis, size in enumerate(spec.shape):
            is_place = spec.name == change.input and axis == change.axis
            if size < 0 and (is_place or (symbol is not None and spec.symbol(axis) == symbol)):
                inputs[spec.name] = _with_size(inputs[spec.name], axis, point, change.size)
    return Profile(name=profile.name, inputs=inputs)


def _with_size(sizes: ShapeRange, axis: int, point: str, size: int) -> ShapeRange:
    low, best, high = (sizes.at(one)[axis] for one in POINTS)
    match point:
        case "min":
            low, best, high = size, max(best, size), max(high, size)
        case "opt":
            low, best, high = min(low, size), size, max(high, size)
        case _:
            low, best, high = min(low, size), min(best, size), size
    changed: Mapping[str, tuple[int, ...]] = {
        one: (*sizes.at(one)[:axis], value, *sizes.at(one)[axis + 1 :])
        for one, value in zip(POINTS, (low, best, high), strict=True)
    }
    return sizes.model_copy(update=dict(changed))


def _fixed_profiles(facts: ModelFacts) -> Iterator[Profile]:
    """Yield profiles of one shape each, with a batch of one and one size for all other open dimensions."""
    guess = guess_profile(facts)
    for size in _COMMON_SIZES:
        shapes = {
            spec.name: tuple(known if known >= 0 else 1 if axis == 0 else size for axis, known in enumerate(spec.shape))
            for spec in facts.inputs
        }
        yield Profile(
            inputs={name: ShapeRange.fixed(shape, guess.inputs[name].values) for name, shape in shapes.items()}
        )
